//! The way from a worker to the keeper of its bag, over which state is saved.

use crate::pipe::{LineEvent, PipeEvent};
use crate::pipe_stream::PipeStream;
use mutirao_wire::checkpoint::{Answer, Saver};

/// What a worker says to the keeper about state, and the pipe for it. It lasts as long as the worker.
#[derive(Default)]
pub struct SavingWay {
    /// What is said and answered.
    pub saver: Saver,
    /// Carries it, once it is there.
    pub pipe: Option<PipeStream>,
    /// The pipe's number: another keeper's has another.
    number: u64,
    /// There will be none.
    failed: Option<String>,
}

impl SavingWay {
    /// Takes what the node says. All but pipes is of no interest here.
    pub fn take(&mut self, event: LineEvent) {
        let LineEvent::Pipe(event) = event else { return };
        match event {
            PipeEvent::Opened { number, way } => match PipeStream::open(way) {
                Ok(pipe) => {
                    self.number = number;
                    (self.pipe, self.failed) = (Some(pipe), None);
                    self.saver.opened();
                }
                Err(_) => self.hang_up(),
            },
            event if ![0, event.number()].contains(&self.number) => {}
            PipeEvent::Broken { .. } => self.hang_up(),
            PipeEvent::Failed { text, .. } => self.lost(text),
        }
    }

    /// There is no way any more, and why.
    pub fn lost(&mut self, why: String) {
        self.hang_up();
        self.failed = Some(why);
    }

    /// Why there is no way to the keeper, and will be none.
    pub fn cut_off(&self) -> Option<&str> {
        self.failed.as_deref().filter(|_| self.pipe.is_none())
    }

    /// Moves what is said and answered. Returns the answer that came, if one did.
    pub fn talk(&mut self) -> Option<Answer> {
        let pipe = self.pipe.as_mut()?;
        let mut bytes = Vec::new();
        let read = pipe.read(&mut bytes);
        let heard = self.saver.hear(&bytes);
        let mut written = Ok(1);
        while written != Ok(0) && written.is_ok() && !self.saver.unwritten().is_empty() {
            written = pipe.write(self.saver.unwritten());
            self.saver.written(written.unwrap_or(0));
        }
        if read.is_err() || written.is_err() || heard.is_err() {
            self.hang_up();
        }
        heard.ok().flatten()
    }

    fn hang_up(&mut self) {
        self.pipe = None;
        self.saver.broken();
    }
}
