//! Values that refuse to travel, or do harm on the way. Only the task concerned fails.

use inparallel::{ErrorKind, StartMethod, task};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::harness::{ALL, ISOLATED, REMOTE};
use crate::tasks::{Death, double};

trials! {
    warm on REMOTE => {
        argument_that_does_not_encode_is_refused_with_its_reason,
        argument_that_does_not_decode_names_its_type,
        argument_that_panics_in_the_worker_is_a_panic,
        argument_that_ends_the_worker_is_a_death,
        worker_that_dies_of_large_arguments_blocks_nobody,
    }
    warm on ALL => {
        result_that_does_not_encode_is_refused_with_its_reason,
        result_that_does_not_decode_names_its_type,
        result_that_panics_is_a_panic,
    }
    warm on ISOLATED => {
        result_that_ends_the_worker_is_a_death,
        result_longer_than_allowed_is_refused,
    }
}

/// What happens when it is encoded or decoded.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Harm {
    None,
    Refuse,
    Die(Death),
}

impl Harm {
    fn happen<E: serde::ser::Error>(self) -> Result<(), E> {
        self.happen_or(|| E::custom("no ticket for this journey"))
    }

    fn happen_or<E>(self, refuse: impl FnOnce() -> E) -> Result<(), E> {
        match self {
            Harm::None => Ok(()),
            Harm::Refuse => Err(refuse()),
            Harm::Die(death) => {
                death.happen();
                Ok(())
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Parcel {
    on_encode: Harm,
    on_decode: Harm,
    content: Vec<u8>,
}

impl Parcel {
    fn encodes(on_encode: Harm) -> Parcel {
        Parcel {
            on_encode,
            on_decode: Harm::None,
            content: Vec::new(),
        }
    }

    fn decodes(on_decode: Harm) -> Parcel {
        Parcel {
            on_encode: Harm::None,
            on_decode,
            content: Vec::new(),
        }
    }
}

impl Serialize for Parcel {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // The library looks at a result's first call to the serializer before it encodes it.
        let encoded = (Note(self.on_encode), self.on_decode, serde_bytes(&self.content));
        encoded.serialize(serializer)
    }
}

struct Note(Harm);

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.happen()?;
        serializer.serialize_unit()
    }
}

fn serde_bytes(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl<'de> Deserialize<'de> for Parcel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ((), Checked(on_decode), content) = <((), Checked, String)>::deserialize(deserializer)?;
        Ok(Parcel {
            on_encode: Harm::None,
            on_decode,
            content: content.into_bytes(),
        })
    }
}

/// Does its harm when the first bytes of the parcel are decoded, long before the content.
struct Checked(Harm);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let harm = Harm::deserialize(deserializer)?;
        harm.happen_or(|| serde::de::Error::custom("no ticket for this journey"))?;
        Ok(Checked(harm))
    }
}

#[task]
fn weigh(parcel: Parcel) -> usize {
    parcel.content.len()
}

#[task]
fn send_back(on_encode: Harm, on_decode: Harm) -> Parcel {
    Parcel {
        on_encode,
        on_decode,
        content: Vec::new(),
    }
}

fn argument_that_does_not_encode_is_refused_with_its_reason(method: StartMethod) {
    let beside = double::with().start(method).call(1);
    let future = weigh::with().start(method).call(Parcel::encodes(Harm::Refuse));
    assert!(future.is_done());
    assert_eq!(future.pid(), None);
    let error = future.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ArgumentNotEncodable);
    assert!(
        error.to_string().contains("no ticket for this journey"),
        "{error}"
    );
    assert!(error.to_string().contains("Parcel"), "{error}");
    assert_eq!(beside.wait().unwrap(), 2);
}

fn argument_that_does_not_decode_names_its_type(method: StartMethod) {
    let beside = double::with().start(method).call(1);
    let error = weigh::with()
        .start(method)
        .call(Parcel::decodes(Harm::Refuse))
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ArgumentNotDecodable);
    assert!(
        error.to_string().contains("no ticket for this journey"),
        "{error}"
    );
    assert!(error.to_string().contains("Parcel"), "{error}");
    assert!(error.pid().is_some());
    assert_eq!(beside.wait().unwrap(), 2);
}

fn argument_that_panics_in_the_worker_is_a_panic(method: StartMethod) {
    let error = weigh::with()
        .start(method)
        .call(Parcel::decodes(Harm::Die(Death::Panic)))
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(error.panic_message(), Some("a task that panics"));
}

fn argument_that_ends_the_worker_is_a_death(method: StartMethod) {
    let beside = double::with().start(method).call(1);
    let error = weigh::with()
        .start(method)
        .call(Parcel::decodes(Harm::Die(Death::ExitNow(9))))
        .wait()
        .unwrap_err();
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Exited, Some(9)));
    let error = weigh::with()
        .start(method)
        .call(Parcel::decodes(Harm::Die(Death::Abort)))
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Signaled);
    assert_eq!(beside.wait().unwrap(), 2);
}

fn worker_that_dies_of_large_arguments_blocks_nobody(method: StartMethod) {
    let content = vec![b'x'; 1 << 20];
    let parcel = |on_decode| Parcel {
        on_encode: Harm::None,
        on_decode,
        content: content.clone(),
    };
    let doomed = Harm::Die(Death::Abort);
    let futures: Vec<_> = (0..10)
        .map(|_| weigh::with().start(method).call(parcel(doomed)))
        .collect();
    let beside = weigh::with().start(method).call(parcel(Harm::None));
    for future in futures {
        let error = future.wait().unwrap_err();
        assert_eq!(error.signal().map(|signal| signal.name()), Some("SIGABRT"));
    }
    assert_eq!(beside.wait().unwrap(), 1 << 20);
}

fn result_that_does_not_encode_is_refused_with_its_reason(method: StartMethod) {
    let error = send_back::with()
        .start(method)
        .call(Harm::Refuse, Harm::None)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResultNotEncodable);
    assert!(
        error.to_string().contains("no ticket for this journey"),
        "{error}"
    );
    assert!(error.to_string().contains("Parcel"), "{error}");
    assert_eq!(double::with().start(method).call(1).wait().unwrap(), 2);
}

fn result_that_does_not_decode_names_its_type(method: StartMethod) {
    let error = send_back::with()
        .start(method)
        .call(Harm::None, Harm::Refuse)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResultNotDecodable);
    assert!(
        error.to_string().contains("no ticket for this journey"),
        "{error}"
    );
    assert!(error.to_string().contains("Parcel"), "{error}");
}

fn result_that_panics_is_a_panic(method: StartMethod) {
    let error = send_back::with()
        .start(method)
        .call(Harm::Die(Death::Panic), Harm::None)
        .wait()
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(error.panic_message(), Some("a task that panics"));
}

fn result_that_ends_the_worker_is_a_death(method: StartMethod) {
    let beside = double::with().start(method).call(1);
    let ended = |death| {
        send_back::with()
            .start(method)
            .call(Harm::Die(death), Harm::None)
            .wait()
            .unwrap_err()
    };
    let error = ended(Death::ExitNow(9));
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Exited, Some(9)));
    let error = ended(Death::Exit(0));
    assert_eq!((error.kind(), error.exit_code()), (ErrorKind::Exited, Some(0)));
    let error = ended(Death::Fault);
    assert_eq!(error.signal().map(|signal| signal.name()), Some("SIGSEGV"));
    assert_eq!(beside.wait().unwrap(), 2);
}

#[task]
fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

/// Bytes are nothing but themselves.
fn result_longer_than_allowed_is_refused(method: StartMethod) {
    let fits = zeros::with().start(method).max_result(1000).call(1000);
    let exceeds = zeros::with().start(method).max_result(1000).call(1001);
    let far_exceeds = zeros::with().start(method).max_result(0).call(8 << 20);
    assert_eq!(fits.wait().unwrap().len(), 1000);
    let error = exceeds.wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResultTooLarge);
    assert!(
        error.to_string().contains("1001") && error.to_string().contains("1000"),
        "{error}"
    );
    assert_eq!(far_exceeds.wait().unwrap_err().kind(), ErrorKind::ResultTooLarge);
}
