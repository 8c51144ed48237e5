use super::encoded::Short;
use super::*;
use serde::{Deserialize, Serialize};

/// Message and payload in one buffer.
fn frame(reply: &Reply, payload: &[u8]) -> Vec<u8> {
    let mut bytes = frame_head(reply, payload.len()).unwrap();
    bytes.extend_from_slice(payload);
    bytes
}

fn reply() -> Reply {
    Reply::Panicked(Panic {
        message: "boom".into(),
        location: Some(Location {
            file: "a.rs".into(),
            line: 3,
            column: 7,
        }),
        backtrace: "0: main".into(),
    })
}

#[test]
fn frames_survive_any_cut() {
    let mut bytes = frame(&reply(), b"payload");
    bytes.extend(frame(&Reply::Returned { is_err: true }, b""));
    for piece in 1..bytes.len() {
        let mut assembler = Assembler::new(100);
        let mut got = Vec::new();
        for mut part in bytes.chunks(piece) {
            while let Some(frame) = assembler.feed::<Reply>(&mut part).unwrap() {
                got.push((frame.message, frame.payload));
            }
        }
        assert!(assembler.is_at_start(), "pieces of {piece}");
        assert_eq!(
            got,
            [
                (reply(), b"payload".to_vec()),
                (Reply::Returned { is_err: true }, vec![])
            ]
        );
    }
}

#[test]
fn forged_frames_are_refused_and_take_no_memory() {
    fn check(bytes: &[u8], wanted: &str) {
        let error = Assembler::new(1000).feed::<Reply>(&mut &*bytes).unwrap_err();
        assert!(format!("{error:?}").contains(wanted), "{error:?}");
    }
    let good = frame(&Reply::Returned { is_err: false }, b"abc");
    check(b"hello, this is no frame at all", "begins with");
    let mut long_message = good.clone();
    long_message[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    check(&long_message, "claims");
    let mut long_payload = good.clone();
    long_payload[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    check(&long_payload, "TooLarge");
    let mut unknown = good.clone();
    unknown[16..20].copy_from_slice(&77u32.to_le_bytes());
    check(&unknown, "Garbage");

    // A length within the limit that never arrives costs only what did arrive.
    let mut claim = good;
    claim[8..16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    let mut assembler = Assembler::new(u64::MAX);
    assert_eq!(assembler.feed::<Reply>(&mut &*claim), Ok(None));
}

#[test]
fn no_bytes_make_the_decoder_panic() {
    // A small generator: the point is many shapes, not good randomness.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..20_000u32 {
        let mut bytes = frame(&reply(), b"x");
        for _ in 0..=round % 4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] = (seed >> 20) as u8;
        }
        let _outcome = Assembler::new(1 << 20).feed::<Reply>(&mut &*bytes);
        let _outcome = decode::<(String, Vec<u8>, Option<Vec<String>>)>(&bytes);
    }
}

#[test]
fn hostile_lengths_are_errors_not_aborts() {
    let mut bytes = u64::MAX.to_le_bytes().to_vec();
    bytes.push(b'x');
    assert!(decode::<String>(&bytes).is_err());
    assert!(decode::<Vec<u8>>(&bytes).is_err());
    assert!(decode::<Vec<u64>>(&bytes).is_err());
    bytes[..8].copy_from_slice(&(1u64 << 36).to_le_bytes());
    assert!(decode::<String>(&bytes).is_err());
}

#[test]
fn the_limit_rejects_nothing_that_was_encoded() {
    fn check<T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        let bytes = encode(&value).unwrap();
        assert_eq!(decode::<T>(&bytes).unwrap(), value);
    }
    for len in [0, 1, 100, 5000, 70_000, 300_000] {
        check(vec![7u8; len]);
        check(vec![7u64; len]);
        check(vec![Some(1u128); len.min(5000)]);
        check("é".repeat(len));
        check(vec!['é'; len.min(5000)]);
    }
}

#[test]
fn left_over_bytes_are_an_error() {
    let mut bytes = encode(&5u32).unwrap();
    bytes.push(0);
    assert!(decode::<u32>(&bytes).unwrap_err().contains("left over"));
}

#[test]
fn an_err_is_told_from_everything_else() {
    #[derive(Serialize, Deserialize)]
    struct Plain {
        a: u8,
    }
    type Alias = Result<Plain, String>;
    assert!(is_err_value(&Alias::Err("x".into())));
    assert!(!is_err_value(&Alias::Ok(Plain { a: 1 })));
    assert!(!is_err_value(&Plain { a: 1 }));
    assert!(!is_err_value(&()));
    assert!(!is_err_value("Err"));
    assert!(!is_err_value(&Some(Alias::Err("inner".into()))));
}

fn written(encoded: Encoded) -> Vec<u8> {
    encoded.finish().into_vec()
}

#[test]
fn what_is_encoded_is_whole_however_it_was_written() {
    let all: Vec<u8> = (0..100).collect();
    for len in 0..all.len() {
        for piece in 1..=len.max(1) {
            for reserved in [0, 10, 50] {
                let mut encoded = Encoded::default();
                encoded.reserve(reserved);
                for bytes in all[..len].chunks(piece) {
                    encoded.push(bytes);
                    encoded.reserve(1);
                    encoded.push(&[]);
                }
                assert_eq!(written(encoded), all[..len], "pieces of {piece}");
            }
        }
    }
}

#[test]
fn bytes_in_one_piece_are_as_serde_writes_them() {
    for bytes in [vec![], vec![7], vec![0; 300]] {
        let mut encoded = Encoded::default();
        encode_bytes(&bytes, &mut encoded);
        encoded.push(&[9]);
        let encoded = written(encoded);
        let mut input = &encoded[..];
        assert_eq!(input[..input.len() - 1], encode(&bytes).unwrap());
        assert_eq!(decode_bytes(&mut input).unwrap(), bytes);
        assert_eq!(input, [9]);
    }
    for broken in [&[][..], &[1, 2, 3], &[4, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3], &[255; 9]] {
        decode_bytes(&mut &*broken).unwrap_err();
    }
}

#[test]
fn a_number_that_is_cut_off_is_an_error() {
    fn check<T: Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) {
        let bytes = encode(&value).unwrap();
        let mut encoded = Encoded::default();
        encode_argument(&value, &mut encoded).unwrap();
        assert_eq!(written(encoded), bytes);
        for end in 0..bytes.len() {
            decode::<T>(&bytes[..end]).unwrap_err();
            decode_argument::<T>(&mut &bytes[..end]).unwrap_err();
        }
        let mut longer = bytes.clone();
        longer.push(7);
        assert!(decode::<T>(&longer).unwrap_err().contains("left over"));
        let mut rest = &longer[..];
        assert_eq!(decode_argument::<T>(&mut rest).unwrap(), value);
        assert_eq!(rest, [7]);
    }
    check(u8::MAX);
    check(-2_i16);
    check(u32::MAX - 1);
    check(i64::MIN);
    check(usize::MAX);
    check(u128::MAX - 2);
    check(1.5_f32);
    check(-0.25_f64);
}

#[test]
fn a_short_piece_is_written_as_any_other() {
    let mut bytes = Short::default();
    for (at, byte) in bytes.0.iter_mut().enumerate() {
        *byte = 100 + at as u8;
    }
    let (mut short, mut any) = (vec![1], vec![1]);
    for len in 0..=bytes.0.len() {
        push_short_piece(len as u8, bytes, &mut short);
        push_piece(&bytes.0[..len], &mut any);
        assert_eq!(short, any, "{len} bytes");
    }
    let mut rest = &short[1..];
    for len in 0..=bytes.0.len() {
        assert_eq!(next_piece(&mut rest).unwrap(), &bytes.0[..len]);
    }
    assert!(rest.is_empty());
}

#[test]
fn a_short_value_is_what_a_result_is() {
    let bytes = [0, 1, 2, 3, 9, 254, 255];
    let mut found = 0;
    // All inputs of up to five of these bytes.
    for len in 0..=5 {
        for nth in 0..bytes.len().pow(len) {
            let digits = (0..len).map(|place| bytes[nth / bytes.len().pow(place) % bytes.len()]);
            let input: Vec<u8> = digits.collect();
            let Some((value, rest)) = short_value(&input) else {
                continue;
            };
            found += 1;
            let mut left = &input[..];
            assert_eq!(next_result(&mut left).unwrap().unwrap(), value, "{input:?}");
            assert_eq!(left, rest, "{input:?}");
        }
    }
    assert!(found > 1000, "{found}");
}
