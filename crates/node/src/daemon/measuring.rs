//! Questions about workers: what they use is read beside the loop, for all who have asked meanwhile at once.

use super::Daemon;
use crate::jobs::Done;
use crate::lender::usage::{self, Uses};
use mutirao_tree::Input;
use mutirao_wire::AppId;
use mutirao_wire::query::Row;
use mutirao_wire::tree::AskId;

/// Questions that wait. There are no more than the core lets through.
#[derive(Default)]
pub(super) struct Measuring {
    /// Those that are answered with what is being read.
    now: Vec<Asked>,
    /// Those that came since.
    next: Vec<Asked>,
}

struct Asked {
    id: AskId,
    /// The application whose workers are meant; `None`: all.
    app: Option<AppId>,
}

impl Measuring {
    pub(super) fn awaits(&self, id: &AskId) -> bool {
        self.now.iter().chain(&self.next).any(|asked| asked.id == *id)
    }
}

impl Daemon {
    /// The rows of workers; those of a node that has some come once it is known what they use.
    pub(super) fn worker_rows(&mut self, id: AskId, app: Option<AppId>) -> Vec<Row> {
        if self.lender.processes().next().is_none() {
            return self.lender.rows(&self.ctx, app, &Uses::new());
        }
        self.measuring.next.push(Asked { id, app });
        self.measure_next();
        Vec::new()
    }

    /// For everybody who asked before it was begun.
    pub(super) fn measured(&mut self, uses: &Uses) {
        for Asked { id, app } in std::mem::take(&mut self.measuring.now) {
            let rows = self.lender.rows(&self.ctx, app, uses);
            self.tell_core(Input::Answered { id, rows });
        }
        self.measure_next();
    }

    fn measure_next(&mut self) {
        if !self.measuring.now.is_empty() || self.measuring.next.is_empty() {
            return;
        }
        self.measuring.now = std::mem::take(&mut self.measuring.next);
        let workers: Vec<u32> = self.lender.processes().collect();
        self.ctx.jobs.run(move || Done::Measured(usage::read(&workers)));
    }
}
