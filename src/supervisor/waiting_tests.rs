use std::collections::BTreeMap;

use super::waiting::Waiting;
use crate::ids::Rank;

/// Beside an ordered map, which does the same in the plain way.
#[test]
fn it_is_an_ordered_map() {
    let mut seed = 0x2545_f491_4f6c_dd1du64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let (mut waiting, mut model) = (Waiting::default(), BTreeMap::new());
    let (mut numbers, mut popped) = (0, Vec::new());
    for round in 0..200_000 {
        // Now it grows, now it shrinks.
        let grows = round / 1000 % 2;
        match random(4 + grows * 2) {
            0 => {
                let first = waiting.pop_first();
                assert_eq!(first, model.pop_first());
                popped.extend(first);
            }
            1 if !popped.is_empty() => {
                let (rank, thing) = popped.swap_remove(random(popped.len() as u64) as usize);
                waiting.push(rank, thing);
                model.insert(rank, thing);
            }
            2 => {
                let rank = Rank {
                    priority: random(3) as i32,
                    number: random(numbers + 1),
                };
                assert_eq!(waiting.remove(rank), model.remove(&rank));
            }
            _ => {
                let rank = Rank {
                    priority: random(3) as i32,
                    number: numbers,
                };
                numbers += 1;
                waiting.push(rank, numbers);
                model.insert(rank, numbers);
            }
        }
        assert_eq!(waiting.len(), model.len());
        assert_eq!(waiting.is_empty(), model.is_empty());
        assert_eq!(waiting.first(), model.keys().next().copied());
    }
    assert!(waiting.take_all().eq(model.into_values()));
    assert!(waiting.is_empty());
}
