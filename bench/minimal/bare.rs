//! The least program: eight bytes to its stdout, without Rust's runtime.

#![no_std]
#![no_main]

#[link(name = "c")]
unsafe extern "C" {
    fn write(descriptor: i32, bytes: *const u8, len: usize) -> isize;
}

#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    let answer = 42_u64.to_ne_bytes();
    // SAFETY: the bytes live until the call is over, and `len` is theirs.
    let written = unsafe { write(1, answer.as_ptr(), answer.len()) };
    i32::from(written != 8)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
