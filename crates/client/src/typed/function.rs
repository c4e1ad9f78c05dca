//! Functions of any number of arguments as operations of one value.

use crate::operation::Failure;
use mutirao_wire::stream::failure;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A function that can be an operation. `Marker` is its signature, which is inferred.
///
/// A function of one argument is called with that argument, one of several with a tuple of them, one of none
/// with `()`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called on another machine",
    note = "it must be a function of at most eight owned values that serde can encode, and so must its result be"
)]
pub trait Function<Marker>: 'static {
    /// What it is called with.
    type Argument: Serialize;
    /// What it returns.
    type Output: DeserializeOwned;
}

fn decode<A: DeserializeOwned>(bytes: &[u8]) -> Result<A, Failure> {
    match postcard::take_from_bytes(bytes) {
        Ok((argument, [])) => Ok(argument),
        Ok(_) => Err(bad_argument("there are bytes left over")),
        Err(error) => Err(bad_argument(&error.to_string())),
    }
}

fn bad_argument(why: &str) -> Failure {
    let text = format!("the argument cannot be decoded ({why}); do caller and worker have the same types?");
    Failure { code: failure::BAD_ARGUMENT, text }
}

fn encode<R: Serialize>(value: &R, result: &mut Vec<u8>) -> Result<(), Failure> {
    match postcard::to_extend(value, std::mem::take(result)) {
        Ok(bytes) => {
            *result = bytes;
            Ok(())
        }
        Err(error) => Err(Failure {
            code: failure::BAD_ARGUMENT,
            text: format!("the result cannot be encoded: {error}"),
        }),
    }
}

macro_rules! functions {
    ($($run:ident: $($name:ident)*;)*) => { $(
        impl<Fun, Out, $($name,)*> Function<fn($($name,)*) -> Out> for Fun
        where
            Fun: Fn($($name,)*) -> Out + 'static,
            Out: Serialize + DeserializeOwned,
            $($name: Serialize + DeserializeOwned,)*
        {
            type Argument = functions!(@argument $($name)*);
            type Output = Out;
        }

        /// Runs a function on an encoded argument.
        #[allow(non_snake_case)]
        pub fn $run<Out: Serialize, $($name: DeserializeOwned,)*>(
            function: fn($($name,)*) -> Out,
            argument: &[u8],
            result: &mut Vec<u8>,
        ) -> Result<(), Failure> {
            let functions!(@pattern $($name)*): functions!(@argument $($name)*) = decode(argument)?;
            encode(&function($($name,)*), result)
        }
    )* };
    (@argument $one:ident) => { $one };
    (@argument $($name:ident)*) => { ($($name,)*) };
    (@pattern $one:ident) => { $one };
    (@pattern $($name:ident)*) => { ($($name,)*) };
}

functions! {
    run_0: ;
    run_1: A;
    run_2: A B;
    run_3: A B C;
    run_4: A B C D;
    run_5: A B C D E;
    run_6: A B C D E F;
    run_7: A B C D E F G;
    run_8: A B C D E F G H;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_run_on_encoded_arguments() {
        let mut result = Vec::new();
        run_2(|a: u32, b: u32| a + b, &postcard::to_stdvec(&(2u32, 3u32)).unwrap(), &mut result).unwrap();
        assert_eq!(postcard::from_bytes::<u32>(&result), Ok(5));
        result.clear();
        run_0(|| "x".to_owned(), &[], &mut result).unwrap();
        assert_eq!(postcard::from_bytes::<String>(&result), Ok("x".into()));
    }

    #[test]
    fn a_wrong_argument_is_a_failure() {
        let mut result = Vec::new();
        let short = run_1(|text: String| text, &[5, b'a'], &mut result).unwrap_err();
        assert_eq!(short.code, failure::BAD_ARGUMENT);
        let long = run_1(|number: u8| number, &[1, 2], &mut result).unwrap_err();
        assert_eq!(long.code, failure::BAD_ARGUMENT);
    }
}
