use super::*;

/// Where memory can be shared.
fn sheet() -> Option<(Sheet, SharedBoard)> {
    let (sheet, fd) = Sheet::new().ok()?;
    Some((sheet, SharedBoard::of_fd(&fd).unwrap()))
}

#[test]
fn worker_learns_where_its_call_is() {
    for come in Come::ALL {
        let Some((sheet, board)) = sheet() else { return };
        assert!(!board.is_expected_within(Duration::ZERO));
        sheet.expect();
        sheet.expect();
        assert!(board.is_expected_within(Duration::ZERO));
        let waiting = std::thread::spawn(move || board.wait_for_one(&Spin::new(Duration::ZERO)).unwrap());
        sheet.announce(come);
        assert_eq!(waiting.join().unwrap(), come);
    }
}

#[test]
fn answer_is_seen_and_one_side_has_it() {
    let Some((sheet, board)) = sheet() else { return };
    assert_eq!(sheet.look_out(|is_there| _ = is_there()), None);
    // Nobody looks out.
    assert!(board.answer(ONLY, Some((true, b"no"))).ring);
    let found = sheet.look_out(|is_there| _ = is_there()).unwrap();
    assert_eq!((found.0, &*found.1), (true, &b"no"[..]));
    assert!(sheet.claim() && !sheet.claim());
}

#[test]
fn supervisor_is_not_rung_while_somebody_looks_out() {
    let Some((sheet, board)) = sheet() else { return };
    let found = sheet.look_out(|is_there| {
        assert!(!board.answer(ONLY, Some((false, b"yes"))).ring);
        assert!(is_there());
    });
    assert_eq!(&*found.unwrap().1, b"yes");
}

#[test]
fn answer_by_the_pipe_is_not_here() {
    let Some((sheet, board)) = sheet() else { return };
    board.answer(ONLY, None);
    assert_eq!(sheet.look_out(|is_there| _ = is_there()), None);
}
