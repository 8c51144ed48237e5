use std::os::fd::AsFd;

use super::*;

#[test]
fn descriptors_that_fit_are_received_where_others_do_not() {
    let (ours, far) = control_pair().unwrap();
    let many = vec![far.as_fd(); 10];
    assert!(ours.send(b"ten", &many).unwrap());
    let mut buffer = [0; 8];
    let (len, fds) = receive_into(&far, &mut buffer).unwrap().unwrap();
    assert_eq!((&buffer[..len], fds.len()), (&b"ten"[..], 8));
    // They are that socket.
    let file = far.file_id().unwrap();
    assert!(fds.iter().all(|fd| fd.file_id().unwrap() == file));
}

#[test]
fn message_without_descriptors_has_none() {
    let (ours, far) = control_pair().unwrap();
    assert!(receive_into(ours.fd(), &mut [0; 8]).unwrap().is_none());
    assert!(ours.send(b"none", &[]).unwrap());
    let (len, fds) = receive_into(&far, &mut [0; 8]).unwrap().unwrap();
    assert_eq!((len, fds.len()), (4, 0));
    drop(ours);
    let error = receive_into(&far, &mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
