use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::SndBuf;

use super::*;

#[test]
fn longest_words_come_in_one_piece_through_the_smallest_socket() {
    let (gate, far) = Gate::pair().unwrap();
    // The kernel makes that the least it allows.
    setsockopt(&gate.0, SndBuf, &1).unwrap();
    let words: Vec<u8> = (0..LONGEST_WORDS).map(|at| at as u8).collect();
    gate.open(&words, None).unwrap();
    let mut buffer = [0; 2 * LONGEST_WORDS];
    let (len, fds) = receive_into(&far, &mut buffer).unwrap().unwrap();
    assert_eq!(
        (&buffer[..4], &buffer[4..len], fds.len()),
        (&b"gogo"[..], &*words, 1)
    );
}

#[test]
fn gate_is_untouched_until_it_is_passed() {
    let (gate, far) = Gate::pair().unwrap();
    assert!(!gate.is_untouched(), "its worker lives");
    gate.open(b"words", None).unwrap();
    drop(far);
    assert!(gate.is_untouched());

    let (gate, far) = Gate::pair().unwrap();
    gate.open(b"words", None).unwrap();
    let _ = receive_into(&far, &mut [0; 64]).unwrap().unwrap();
    drop(far);
    assert!(!gate.is_untouched());

    let (gate, far) = Gate::pair().unwrap();
    drop(far);
    assert!(gate.open(b"words", None).is_err());
}
