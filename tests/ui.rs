//! What `#[task]` accepts, under strict lints, and what it says about the rest.
//!
//! The expected messages are those of one compiler: `TRYBUILD=overwrite cargo test --test ui` writes them anew.

#[test]
fn accepted_functions_compile_and_run() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn refused_functions_get_advice_at_the_place() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
