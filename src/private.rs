//! What the output of `#[task]` refers to. No promise to anyone else.

pub use crate::argument::{
    Argument, Output, Refused, decode, decode_slice, encode, encode_borrowed, encode_slice,
};
pub use crate::ids::Name;
pub use crate::task::start;

/// The setters of [`Options`](crate::Options) over a field `options`.
#[doc(hidden)]
#[macro_export]
macro_rules! __task_options {
    () => {
        $crate::__task_options! {
            start(method: $crate::StartMethod);
            timeout(limit: ::core::time::Duration);
            grace(grace: ::core::time::Duration);
            kill_on_drop();
            stderr(stderr: $crate::Stderr);
            max_result(bytes: u64);
            program(path: impl ::core::convert::Into<::std::path::PathBuf>);
        }
    };
    ($($name:ident($($argument:ident: $type:ty)?);)*) => {
        $(
            #[doc = concat!("As `inparallel::Options::", stringify!($name), "`.")]
            #[allow(dead_code)]
            #[must_use]
            pub fn $name(mut self $(, $argument: $type)?) -> Self {
                self.options = self.options.$name($($argument)?);
                self
            }
        )*
    };
}

pub use crate::__task_options as task_options;
