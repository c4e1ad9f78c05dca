//! Lanes: bytes one way, of whose arrival the other side hears elsewhere.

use std::os::fd::AsFd;
use std::sync::Arc;

use crate::memory::{CALL_WORDS, HEADER_BYTES, map_ring};
use crate::pipe::{Consumer, Pipe, Producer};
use crate::{Error, Ringer};

/// Maps the writing end of a lane, which is the pipe for calls of a ring's memory. Nobody is woken by what is
/// written there: say so over a socket.
pub fn lane_writer(memory: impl AsFd) -> Result<Producer, Error> {
    Ok(Producer::new(lane(memory, None)?))
}

/// Maps the reading end of a lane. `writer` rings the bell of the writing side, which sleeps when the lane is full.
pub fn lane_reader(memory: impl AsFd, writer: Ringer) -> Result<Consumer, Error> {
    Ok(Consumer::new(lane(memory, Some(Arc::new(writer)))?))
}

fn lane(memory: impl AsFd, peer: Option<Arc<Ringer>>) -> Result<Pipe, Error> {
    let (shared, capacity) = map_ring(memory)?;
    Ok(Pipe { name: "lane", words: CALL_WORDS, data: HEADER_BYTES, capacity, shared: Arc::new(shared), peer })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bell, RingMemory};

    #[test]
    fn a_full_lane_rings_once_there_is_room() {
        let memory = RingMemory::create(4096).unwrap();
        let (bell, ringer) = Bell::pair().unwrap();
        let mut writer = lane_writer(&memory).unwrap();
        let mut reader = lane_reader(&memory, ringer).unwrap();
        let bytes: Vec<u8> = (0..3000).map(|i| i as u8).collect();
        assert!(writer.write_parts(&[&bytes]).unwrap());
        assert!(!writer.write_parts(&[&bytes]).unwrap());
        assert!(!writer.arm_for_room(bytes.len()).unwrap());
        let mut read = Vec::new();
        assert_eq!(reader.read_to(&mut read, 3000).unwrap(), 3000);
        assert_eq!(read, bytes);
        assert!(bell.wait(None).unwrap());
        assert!(writer.write_parts(&[&bytes]).unwrap());
        // It wraps around the end.
        writer.flush().unwrap();
        read.clear();
        reader.read_to(&mut read, 5000).unwrap();
        assert_eq!(read, bytes);
    }
}
