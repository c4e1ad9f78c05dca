/// Bodies up to so many bytes need no memory of their own.
const SMALL: usize = 46;

/// An argument or a result that is kept for a while.
#[derive(Debug)]
pub(crate) enum Body {
    Small(u8, [u8; SMALL]),
    Large(Vec<u8>),
}

impl Body {
    /// Memory for a body that comes in parts; `whole` bytes are expected.
    pub(crate) fn expecting(whole: usize) -> Body {
        Body::Large(Vec::with_capacity(whole))
    }

    pub(crate) fn append(&mut self, part: &[u8]) {
        if let Body::Large(bytes) = self {
            bytes.extend_from_slice(part);
        } else {
            let mut bytes = self.bytes().to_vec();
            bytes.extend_from_slice(part);
            *self = Body::Large(bytes);
        }
    }

    /// Empties it; memory is kept.
    pub(crate) fn clear(&mut self) {
        match self {
            Body::Small(length, _) => *length = 0,
            Body::Large(bytes) => bytes.clear(),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Body::Small(length, bytes) => &bytes[..usize::from(*length)],
            Body::Large(bytes) => bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }
}

impl From<&[u8]> for Body {
    fn from(bytes: &[u8]) -> Body {
        if bytes.len() > SMALL {
            return Body::Large(bytes.to_vec());
        }
        let mut small = [0; SMALL];
        small[..bytes.len()].copy_from_slice(bytes);
        Body::Small(bytes.len() as u8, small)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_what_was_put_in() {
        for length in [0, 1, SMALL, SMALL + 1, 1000] {
            let whole: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let mut body = Body::from(&whole[..length / 2]);
            body.append(&whole[length / 2..]);
            assert_eq!(body.bytes(), whole);
            assert_eq!(Body::from(whole.as_slice()).len(), length);
        }
    }
}
