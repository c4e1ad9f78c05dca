//! Nodes with small disks.

use super::Lab;
use std::path::Path;

impl Lab {
    /// A pool of two nodes, of which `n2` has its cache on a small disk of its own; `None`, having said why, where that
    /// is not allowed.
    pub fn with_small_cache(size: &str) -> Option<Lab> {
        if !rustix::process::getuid().is_root() {
            eprintln!("left out: only root can mount a small disk");
            return None;
        }
        let lab = Lab::with_pool(2, 1);
        lab.run(["--node", "n2", "down"]).well();
        let cache = lab.home().join("cache").join("n2");
        std::fs::create_dir_all(&cache).unwrap();
        lab.up_with_disk("n2", &cache, size);
        lab.until("both are one tree", || lab.nodes().len() == 2);
        Some(lab)
    }

    /// Starts a node below `n1` that sees a small and empty disk of its own where others see this directory.
    pub fn up_with_disk(&self, node: &str, directory: &Path, size: &str) {
        let mut command = self.command("unshare");
        let script = format!("mount -t tmpfs -o size={size} small \"$1\" && shift && exec \"$@\"");
        command.args(["--mount", "--", "sh", "-c", &script, "sh"]).arg(directory).arg(Lab::binary());
        command.args(["up", "--name", node, "--slots", "1", "--parent", "n1"]);
        self.spawn(command).wait().well();
    }

    /// What a script says that sees this disk, as `$0`.
    pub fn beside_small_cache(&self, script: &str) -> String {
        let mut command = self.command("nsenter");
        command.args(["--mount", "--target", &self.pid("n2").to_string(), "--", "sh", "-c", script]);
        command.arg(self.home().join("cache").join("n2"));
        self.spawn(command).wait().well()
    }
}
