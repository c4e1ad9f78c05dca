use mutirao_wire::BlobHash;

/// The way to a site: what is brought at the same time shares it evenly.
#[derive(Debug, Default)]
pub(super) struct Link {
    bytes_s: f64,
    at_s: f64,
    under_way: Vec<Transfer>,
}

/// A blob on its way.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) blob: BlobHash,
    bytes: f64,
    left: f64,
    /// Who waits for it; the first has asked for it.
    pub(super) attempts: Vec<u64>,
}

impl Transfer {
    /// Bytes that have come.
    pub(super) fn brought(&self) -> u64 {
        (self.bytes - self.left.max(0.0)) as u64
    }
}

impl Link {
    pub(super) fn new(bytes_s: f64) -> Link {
        Link { bytes_s, ..Link::default() }
    }

    /// Asks for a blob; one that is under way already is waited for.
    pub(super) fn bring(&mut self, now_s: f64, blob: BlobHash, bytes: u64, attempt: u64) {
        self.pass(now_s);
        match self.under_way.iter_mut().find(|transfer| transfer.blob == blob) {
            Some(transfer) => transfer.attempts.push(attempt),
            None => {
                let (bytes, attempts) = (bytes as f64, vec![attempt]);
                self.under_way.push(Transfer { blob, bytes, left: bytes, attempts });
            }
        }
    }

    /// An attempt waits no longer; what nobody waits for is given up. Returns the bytes that had come of
    /// that.
    pub(super) fn forget(&mut self, now_s: f64, attempt: u64) -> u64 {
        self.pass(now_s);
        let mut brought = 0;
        self.under_way.retain_mut(|transfer| {
            transfer.attempts.retain(|one| *one != attempt);
            let wanted = !transfer.attempts.is_empty();
            brought += if wanted { 0 } else { transfer.brought() };
            wanted
        });
        brought
    }

    /// What has come by now.
    pub(super) fn arrived(&mut self, now_s: f64) -> Vec<Transfer> {
        self.pass(now_s);
        // Half a byte: time comes in microseconds.
        self.under_way.extract_if(.., |transfer| transfer.left < 0.5).collect()
    }

    /// When the next blob will have come.
    pub(super) fn next_s(&self) -> Option<f64> {
        let least = self.under_way.iter().map(|transfer| transfer.left).min_by(f64::total_cmp)?;
        Some(self.at_s + least.max(0.0) * self.under_way.len() as f64 / self.bytes_s)
    }

    fn pass(&mut self, now_s: f64) {
        let share = (now_s - self.at_s) * self.bytes_s / self.under_way.len().max(1) as f64;
        self.at_s = now_s;
        for transfer in &mut self.under_way {
            transfer.left -= share;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_at_the_same_time_shares_the_way() {
        let mut link = Link::new(10.0);
        link.bring(0.0, BlobHash([1; 32]), 100, 1);
        assert_eq!(link.next_s(), Some(10.0));
        link.bring(5.0, BlobHash([2; 32]), 100, 2);
        link.bring(5.0, BlobHash([1; 32]), 100, 3);
        assert_eq!(link.next_s(), Some(15.0));
        let arrived = link.arrived(15.0);
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].attempts, [1, 3]);
        assert_eq!(link.next_s(), Some(20.0));
        assert_eq!(link.forget(16.0, 2), 60);
        assert_eq!(link.next_s(), None);
    }
}
