//! What the attribute refuses, and beside each what it takes.

/// ```compile_fail
/// #[mutirao::operation]
/// fn borrowed(text: &str) -> usize { text.len() }
/// ```
/// ```
/// #[mutirao::operation]
/// fn owned(text: String) -> usize { text.len() }
/// ```
struct References;

/// ```compile_fail
/// #[mutirao::operation]
/// fn any<T: ToString>(value: T) -> String { value.to_string() }
/// ```
/// ```
/// #[mutirao::operation]
/// fn one(value: u32) -> String { value.to_string() }
/// ```
struct Generics;

/// ```compile_fail
/// #[mutirao::operation]
/// async fn later() -> u32 { 1 }
/// ```
/// ```
/// #[mutirao::operation]
/// fn now() -> u32 { 1 }
/// ```
struct Async;

/// ```compile_fail
/// #[mutirao::operation(repeatedly)]
/// fn one() -> u32 { 1 }
/// ```
/// ```
/// #[mutirao::operation(repeatable, name = "one")]
/// fn one() -> u32 { 1 }
/// ```
struct Options;

/// Results must be encodable too.
/// ```compile_fail
/// struct Opaque;
/// #[mutirao::operation]
/// fn one() -> Opaque { Opaque }
/// ```
struct Results;

/// ```compile_fail
/// #[mutirao::operation]
/// fn nine(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}
/// ```
/// ```
/// #[mutirao::operation]
/// fn eight(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}
/// ```
struct Arguments;
