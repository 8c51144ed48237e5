use std::os::fd::AsRawFd;

use super::*;

fn address(file: &File, len: u64) -> Address {
    let stat = fstat(file).unwrap();
    Address {
        pid: std::process::id(),
        number: file.as_raw_fd(),
        device: stat.st_dev as u64,
        inode: stat.st_ino as u64,
        len,
    }
}

#[test]
fn memory_is_found_by_its_address_and_outlives_its_owner() {
    for memory in [
        Memory::fixed(b"bytes").unwrap(),
        Memory::rewritable(b"bytes").unwrap(),
        Memory::filled(5, |bytes| bytes.copy_from_slice(b"bytes")).unwrap(),
    ] {
        let address = memory.address().unwrap();
        let opened = Memory::open(&address).unwrap();
        drop(memory);
        assert_eq!(opened.bytes(), b"bytes");
        Memory::open(&address).unwrap_err();
    }
}

#[test]
fn nobody_else_can_change_what_is_shared() {
    let mut memory = Memory::rewritable(b"first").unwrap();
    let address = memory.address().unwrap();
    let path = format!("/proc/self/fd/{}", address.number);
    let stranger = File::options().write(true).open(path).unwrap();
    stranger.write_all_at(b"wrong", 0).unwrap_err();
    stranger.set_len(0).unwrap_err();
    assert!(memory.rewrite(b"2nd"));
    assert!(!memory.rewrite(b"longer"));
    assert_eq!(Memory::open(&memory.address().unwrap()).unwrap().bytes(), b"2nd");
}

#[test]
fn what_is_not_the_memory_that_is_meant_is_refused() {
    let memory = Memory::fixed(b"bytes").unwrap();
    let good = memory.address().unwrap();
    let refuse = |address: &Address| {
        Memory::open(address).unwrap_err();
    };
    refuse(&Address { len: 6, ..good });
    refuse(&Address { len: 0, ..good });
    refuse(&Address {
        len: u64::MAX,
        ..good
    });
    refuse(&Address {
        inode: good.inode ^ 1,
        ..good
    });
    refuse(&Address {
        device: good.device ^ 1,
        ..good
    });
    refuse(&Address { number: -1, ..good });
    refuse(&Address { pid: 0, ..good });
    // It could become shorter once it is mapped.
    let unsealed = create(FIXED).unwrap();
    unsealed.write_all_at(b"bytes", 0).unwrap();
    refuse(&address(&unsealed, 5));
    seal(&unsealed, SealFlag::F_SEAL_GROW).unwrap();
    refuse(&address(&unsealed, 5));
    // Others can write to it.
    let writable = create(FIXED).unwrap();
    writable.write_all_at(b"bytes", 0).unwrap();
    seal(&writable, SIZE_IS_FIXED).unwrap();
    refuse(&address(&writable, 5));
    // Neither has seals; the pipe has no writer, and opening it does not wait for one.
    refuse(&address(&File::open("/proc/self/exe").unwrap(), 5));
    let (pipe, _) = nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap();
    refuse(&address(&File::from(pipe), 5));
}

#[test]
fn what_was_set_aside_is_opened_again_as_what_it_is_then() {
    let mut memory = Memory::rewritable(b"first").unwrap();
    let mut opened = Memory::open(&memory.address().unwrap()).unwrap();
    let inherited = |opened: &Memory| {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", opened.bytes().as_ptr().addr());
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let flags = lines.find(|line| line.starts_with("VmFlags")).unwrap();
        // "dc": do not copy on fork.
        !flags.split_whitespace().any(|flag| flag == "dc")
    };
    assert!(inherited(&opened));
    assert!(opened.set_aside());
    assert!(!inherited(&opened));
    assert!(memory.rewrite(b"2nd"));
    let again = memory.address().unwrap();
    for other in [
        Address { len: 0, ..again },
        Address { len: 6, ..again },
        Address {
            inode: again.inode ^ 1,
            ..again
        },
        Address {
            device: again.device ^ 1,
            ..again
        },
    ] {
        assert!(!opened.open_again(&other), "{other:?}");
    }
    assert!(!inherited(&opened));
    assert!(opened.open_again(&again));
    assert!(inherited(&opened));
    assert_eq!(opened.bytes(), b"2nd");
}

#[test]
fn what_never_changes_is_not_set_aside() {
    let fixed = Memory::fixed(b"bytes").unwrap();
    assert!(!fixed.set_aside(), "it is not another's");
    let opened = Memory::open(&fixed.address().unwrap()).unwrap();
    assert!(!opened.set_aside());
}

#[test]
fn this_process_has_its_own_rights() {
    assert!(has_our_rights(std::process::id()));
    assert!(!has_our_rights(u32::MAX));
}
