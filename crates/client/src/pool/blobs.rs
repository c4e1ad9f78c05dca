//! Files that a program offers to the workers of its leases, which ask for them by their content.

use super::core::{Core, now};
use super::{LeaseKey, Pool};
use crate::Error;
use crate::pipe::KeptBlob;
use mutirao_wire::BlobHash;
use mutirao_wire::local::{
    BlobFetched, BlobOffered, DropBlob, FetchBlob, LocalMessage, OfferBlob, WithdrawBlob,
};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;

/// A file that was offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OfferedBlob {
    /// Its content, by which workers [ask](crate::raw::Line::ask_blob) for it.
    pub hash: BlobHash,
    /// Its length.
    pub bytes: u64,
}

/// The offers of a pool.
#[derive(Debug, Default)]
pub(super) struct Blobs {
    next: u32,
    /// What was not answered yet, with its file.
    asked: HashMap<u32, OwnedFd>,
    answers: HashMap<u32, Result<OfferedBlob, String>>,
    /// What is to be fetched, and what was.
    fetching: HashMap<u32, FetchBlob>,
    fetched: HashMap<u32, Result<OwnedFd, String>>,
    /// Files that stand offered, and how often, for a node that comes back.
    standing: HashMap<BlobHash, (OwnedFd, u32)>,
}

impl Pool {
    /// Offers a regular file, whatever its size, to the workers of this pool's leases, until it is
    /// [withdrawn](Self::withdraw_blob). The node keeps a copy of what is in it now, and nodes pass it on to one
    /// another; so it is sent from here a few times, however many workers ask for it. Waits until the node has read it,
    /// unless it knows it already.
    pub fn offer_blob(&self, file: File) -> Result<OfferedBlob, Error> {
        let number = {
            let mut core = self.alive()?;
            core.blobs.next = core.blobs.next.wrapping_add(1);
            let number = core.blobs.next;
            let file = OwnedFd::from(file);
            core.offer(number, &file)?;
            core.blobs.asked.insert(number, file);
            core.send(now());
            self.handle.shared.submitted(&mut core, true);
            drop(self.handle.shared.settle(core));
            number
        };
        self.handle.shared.wait_control(None, |core| core.blobs.answers.contains_key(&number));
        let answer = self.alive()?.blobs.answers.remove(&number);
        answer.unwrap_or_else(|| Err("the node did not answer".into())).map_err(Error::BlobRefused)
    }

    /// Brings what the worker of a lease [had its node keep](crate::raw::Line::keep_blob), which is kept until it is
    /// [dropped](Self::drop_blob). It is opened for reading, in the cache of this program's node. Waits as long as that
    /// takes.
    pub fn fetch_blob(&self, lease: LeaseKey, kept: KeptBlob) -> Result<File, Error> {
        let number = {
            let mut core = self.alive()?;
            core.blobs.next = core.blobs.next.wrapping_add(1);
            let number = core.blobs.next;
            let KeptBlob { hash, ticket } = kept;
            let fetch = FetchBlob { number, handle: lease.handle(), hash, ticket };
            core.say(fetch.clone());
            core.blobs.fetching.insert(number, fetch);
            core.send(now());
            self.handle.shared.submitted(&mut core, true);
            drop(self.handle.shared.settle(core));
            number
        };
        self.handle.shared.wait_control(None, |core| core.blobs.fetched.contains_key(&number));
        let answer = self.alive()?.blobs.fetched.remove(&number);
        let answer = answer.unwrap_or_else(|| Err("the node did not answer".into()));
        answer.map(File::from).map_err(Error::BlobRefused)
    }

    /// What the worker of a lease had its node keep is not needed any more.
    pub fn drop_blob(&self, lease: LeaseKey, hash: BlobHash) -> Result<(), Error> {
        let mut core = self.alive()?;
        core.say(DropBlob { handle: lease.handle(), hash });
        core.send(now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }

    /// A blob is no longer needed; once for each time it was offered.
    pub fn withdraw_blob(&self, hash: BlobHash) -> Result<(), Error> {
        let mut core = self.alive()?;
        core.say(WithdrawBlob { hash });
        if let Some((_, times)) = core.blobs.standing.get_mut(&hash) {
            *times -= 1;
            if *times == 0 {
                core.blobs.standing.remove(&hash);
            }
        }
        core.send(now());
        self.handle.shared.submitted(&mut core, true);
        drop(self.handle.shared.settle(core));
        Ok(())
    }
}

impl Core {
    fn offer(&mut self, number: u32, file: &OwnedFd) -> Result<(), Error> {
        if self.link.is_up() {
            let failed = |source| Error::System { what: "duplicate a descriptor", source };
            let copy = file.try_clone().map_err(failed)?;
            self.link.socket.attach(vec![copy]);
            LocalMessage::from(OfferBlob { number }).put(self.link.socket.out());
        }
        Ok(())
    }

    /// The node has answered an offer.
    pub(super) fn blob_offered(&mut self, offered: BlobOffered) {
        let BlobOffered { number, blob } = offered;
        // One that was made again, for a node that has come back, has no number that somebody waits for.
        let Some(file) = self.blobs.asked.remove(&number) else { return };
        let answer = blob.map(|(hash, bytes)| {
            self.blobs.standing.entry(hash).or_insert((file, 0)).1 += 1;
            OfferedBlob { hash, bytes }
        });
        self.blobs.answers.insert(number, answer);
    }

    /// The node has brought something, or not.
    pub(super) fn blob_fetched(&mut self, fetched: BlobFetched) -> Result<(), String> {
        let BlobFetched { number, refused } = fetched;
        let answer = match refused {
            Some(why) => Err(why),
            None => {
                let file = self.link.socket.take_fds(1).and_then(|mut files| files.pop());
                Ok(file.ok_or("a blob came without its descriptor")?)
            }
        };
        if self.blobs.fetching.remove(&number).is_some() {
            self.blobs.fetched.insert(number, answer);
        }
        Ok(())
    }

    /// Offers everything again, and asks again, of a node that has come back.
    pub(super) fn offer_again(&mut self) -> Result<(), Error> {
        let blobs = std::mem::take(&mut self.blobs);
        let standing = blobs.standing.values().flat_map(|(file, times)| (0..*times).map(move |_| (0, file)));
        let asked = blobs.asked.iter().map(|(number, file)| (*number, file));
        let result = standing.chain(asked).try_for_each(|(number, file)| self.offer(number, file));
        for fetch in blobs.fetching.values() {
            LocalMessage::from(fetch.clone()).put(self.link.socket.out());
        }
        self.blobs = blobs;
        result
    }
}
