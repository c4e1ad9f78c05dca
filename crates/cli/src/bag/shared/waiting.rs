//! What a leader is still to propose, in its order: records, what tasks have written, and files, which are read only
//! when it is their turn.

use super::PIECE_BYTES;
use super::state::{Piece, cut};
use mutirao_bag::Span;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Of what tasks have written so much is proposed before it counts: each entry is in memory until then.
const UNDER_WAY_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug)]
enum Next {
    Piece(Piece),
    /// What lies there in a file.
    File {
        file: Arc<File>,
        from: u64,
        end: u64,
    },
}

/// What waits.
#[derive(Debug, Default)]
pub struct Waiting {
    queue: VecDeque<Next>,
    /// Where the next output goes, in the file of outputs.
    end: u64,
    /// Up to where it was proposed.
    proposed: u64,
}

impl Waiting {
    /// Nothing waits, and so much of what tasks have written is there.
    pub fn begin_at(&mut self, outputs: u64) {
        *self = Waiting { queue: VecDeque::new(), end: outputs, proposed: outputs };
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn record(&mut self, record: &[u8]) {
        self.queue.extend(cut(record, PIECE_BYTES).into_iter().map(Next::Piece));
    }

    pub fn piece(&mut self, piece: Piece) {
        self.queue.push_back(Next::Piece(piece));
    }

    pub fn output(&mut self, bytes: &[u8]) -> Span {
        let pieces = bytes.chunks(PIECE_BYTES).map(|bytes| Next::Piece(Piece::Output(bytes.to_vec())));
        self.queue.extend(pieces);
        self.span(bytes.len() as u32)
    }

    /// So many bytes of a file in which nobody writes.
    pub fn file(&mut self, file: Arc<File>, from: u64, bytes: u32) -> Span {
        if bytes > 0 {
            self.queue.push_back(Next::File { file, from, end: from + u64::from(bytes) });
        }
        self.span(bytes)
    }

    fn span(&mut self, bytes: u32) -> Span {
        let span = Span { offset: self.end, bytes };
        self.end += u64::from(bytes);
        span
    }

    /// Whether enough is under way, since of what tasks have written so much counts.
    pub fn is_ahead(&self, counted: u64) -> bool {
        self.proposed >= counted + UNDER_WAY_BYTES_MAX
    }

    /// The next entry.
    pub fn next(&self) -> io::Result<Option<Vec<u8>>> {
        let encoded = |piece: &Piece| postcard::to_stdvec(piece).map_err(io::Error::other);
        Ok(match self.queue.front() {
            None => None,
            Some(Next::Piece(piece)) => Some(encoded(piece)?),
            Some(Next::File { file, from, end }) => {
                let mut bytes = vec![0; (end - from).min(PIECE_BYTES as u64) as usize];
                file.read_exact_at(&mut bytes, *from)?;
                Some(encoded(&Piece::Output(bytes))?)
            }
        })
    }

    /// The next entry is proposed.
    pub fn is_proposed(&mut self) {
        match self.queue.front_mut() {
            Some(Next::File { from, end, .. }) => {
                let bytes = (*end - *from).min(PIECE_BYTES as u64);
                (*from, self.proposed) = (*from + bytes, self.proposed + bytes);
                if from < end {
                    return;
                }
            }
            Some(Next::Piece(Piece::Output(bytes))) => self.proposed += bytes.len() as u64,
            _ => {}
        }
        self.queue.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_becomes_entries_in_its_turn_and_no_more_at_a_time_than_may_be() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..6 << 20).map(|at: u32| (at % 251) as u8).collect();
        std::fs::write(&path, [b"not this", &bytes[..]].concat()).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        let mut waiting = Waiting::default();
        waiting.begin_at(100);
        assert_eq!(waiting.output(b"before"), Span { offset: 100, bytes: 6 });
        assert_eq!(waiting.file(file.clone(), 8, 6 << 20), Span { offset: 106, bytes: 6 << 20 });
        assert_eq!(waiting.file(file.clone(), 8, 0).bytes, 0);
        waiting.record(b"record");
        let (mut counted, mut came, mut rounds) = (100, Vec::new(), 0);
        while !waiting.is_empty() {
            rounds += 1;
            while !waiting.is_ahead(counted)
                && let Some(entry) = waiting.next().unwrap()
            {
                waiting.is_proposed();
                match postcard::from_bytes(&entry).unwrap() {
                    Piece::Output(bytes) => came.extend(bytes),
                    piece => {
                        assert_eq!(piece, Piece::Record { last: true, bytes: b"record".to_vec() });
                        assert!(waiting.is_empty());
                    }
                }
            }
            let under_way = 100 + came.len() as u64 - counted;
            assert!(under_way < UNDER_WAY_BYTES_MAX + PIECE_BYTES as u64);
            counted += under_way;
        }
        assert_eq!((rounds, &came[..6]), (2, &b"before"[..]));
        assert!(came[6..] == bytes);
        // A file that became shorter is no silent zeros.
        waiting.file(file, 0, 7 << 20);
        std::fs::write(&path, b"short").unwrap();
        assert!(waiting.next().is_err());
    }
}
