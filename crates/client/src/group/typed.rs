//! Channels that carry values.

use super::{Error, Group, Input, Output};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;

/// An output channel that carries values of one type.
#[derive(Debug)]
pub struct Sender<T> {
    output: Output,
    name: String,
    values: PhantomData<fn(T)>,
}

/// An input channel that carries values of one type.
#[derive(Debug)]
pub struct Receiver<T> {
    input: Input,
    name: String,
    values: PhantomData<fn() -> T>,
}

impl Group {
    /// The output channel with this number, for values of one type. The other end must have the same type.
    pub fn sender<T: Serialize>(&self, number: u32) -> Result<Sender<T>, Error> {
        let name = format!("output channel {number}");
        Ok(Sender { output: self.output(number)?, name, values: PhantomData })
    }

    /// The input channel with this number, for values of one type.
    pub fn receiver<T: DeserializeOwned>(&self, number: u32) -> Result<Receiver<T>, Error> {
        let name = format!("input channel {number}");
        Ok(Receiver { input: self.input(number)?, name, values: PhantomData })
    }
}

pub(super) fn encode<T: Serialize + ?Sized>(value: &T, channel: &str) -> Result<Vec<u8>, Error> {
    postcard::to_allocvec(value)
        .map_err(|error| Error::Encoding { channel: channel.to_owned(), reason: error.to_string() })
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8], channel: &str) -> Result<T, Error> {
    let wrong = |reason: String| Error::Encoding { channel: channel.to_owned(), reason };
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(wrong(format!("{} bytes are left over", rest.len()))),
        Err(error) => Err(wrong(error.to_string())),
    }
}

impl<T: Serialize> Sender<T> {
    /// Sends a value and waits until it is received.
    pub fn send(&self, value: &T) -> Result<(), Error> {
        self.output.send(&encode(value, &self.name)?)
    }

    /// Stores a value until it is received, and returns. Waits only when as much is stored as may be.
    pub fn post(&self, value: &T) -> Result<(), Error> {
        self.output.post(encode(value, &self.name)?)
    }

    /// The channel as bytes.
    pub fn output(&self) -> &Output {
        &self.output
    }
}

impl<T: DeserializeOwned> Receiver<T> {
    /// Receives the next value, waiting for it. [`Error::Ended`] when none can come any more.
    pub fn receive(&self) -> Result<T, Error> {
        decode(&self.input.receive()?, &self.name)
    }

    /// The same, waiting at most for `timeout`.
    pub fn receive_timeout(&self, timeout: Duration) -> Result<T, Error> {
        decode(&self.input.receive_timeout(timeout)?, &self.name)
    }

    /// The next value, if one is there.
    pub fn try_receive(&self) -> Result<Option<T>, Error> {
        let received = self.input.try_receive()?;
        received.map(|bytes| decode(&bytes, &self.name)).transpose()
    }

    /// The channel as bytes.
    pub fn input(&self) -> &Input {
        &self.input
    }
}
