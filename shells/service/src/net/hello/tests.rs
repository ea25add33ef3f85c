//! Every outcome of a hello, over a pipe.

use futures::future::join;
use libp2p::identity::Keypair;
use libp2p::noise;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;

const ONE: Option<[u8; 32]> = Some([1; 32]);
const TWO: Option<[u8; 32]> = Some([2; 32]);
const THREE: Option<[u8; 32]> = Some([3; 32]);

type Pipe = Compat<tokio::io::DuplexStream>;

fn pipe() -> (Pipe, Pipe) {
    let (one, other) = tokio::io::duplex(4_096);
    (one.compat(), other.compat())
}

/// Outcomes at a dialer and a listener with these secrets.
async fn between(dialer: Keys, listener: Keys) -> (Result<Vec<u8>, Error>, Result<Vec<u8>, Error>) {
    let (mut one, mut other) = pipe();
    join(dial(&mut one, &dialer), answer(&mut other, &listener)).await
}

/// Returns the outcome at a listener with the secret `ONE` that reads these bytes and then the end, and its
/// output.
async fn listen_to(bytes: &[u8]) -> (Error, Vec<u8>) {
    let (mut one, mut other) = pipe();
    let keys = Keys::new(ONE, &[]);
    let say = async {
        one.write_all(bytes).await.unwrap();
        one.close().await.unwrap();
        let mut output = Vec::new();
        one.read_to_end(&mut output).await.unwrap();
        output
    };
    let listen = async {
        let error = answer(&mut other, &keys).await.unwrap_err();
        drop(other);
        error
    };
    let (output, error) = join(say, listen).await;
    (error, output)
}

/// Returns a recorded first part of a dialer.
async fn recorded() -> Vec<u8> {
    let (mut one, mut other) = pipe();
    let keys = Keys::new(ONE, &[]);
    let mut question = vec![0; QUESTION];
    let listen = async {
        other.read_exact(&mut question).await.unwrap();
        drop(other);
    };
    let (dialed, ()) = join(dial(&mut one, &keys), listen).await;
    assert!(matches!(dialed, Err(Error::Io(_))), "{dialed:?}");
    question
}

#[tokio::test]
async fn peers_with_the_same_secret_agree_on_a_prologue_that_is_new_each_time() {
    let mut seen = Vec::new();
    for secret in [ONE, None, ONE] {
        let (dialed, answered) = between(Keys::new(secret, &[]), Keys::new(secret, &[])).await;
        let prologue = dialed.unwrap();
        assert_eq!(prologue, answered.unwrap());
        assert!(!seen.contains(&prologue));
        seen.push(prologue);
    }
}

#[tokio::test]
async fn peers_without_a_common_secret_both_report_it() {
    for (one, other) in [(ONE, TWO), (ONE, None), (None, ONE)] {
        let (dialed, answered) = between(Keys::new(one, &[]), Keys::new(other, &[THREE])).await;
        for ended in [dialed, answered] {
            let error = ended.unwrap_err();
            assert!(matches!(error, Error::Secret), "{error:?}");
            assert!(error.is_about_secrets());
            assert!(error.to_string().starts_with("wrong secret: "), "{error}");
        }
    }
}

#[tokio::test]
async fn any_common_secret_suffices() {
    let sets = [
        (Keys::new(ONE, &[]), Keys::new(TWO, &[ONE])),
        (Keys::new(TWO, &[ONE]), Keys::new(ONE, &[])),
        (Keys::new(TWO, &[THREE, None]), Keys::new(ONE, &[None])),
        (Keys::new(ONE, &[TWO; 7]), Keys::new(TWO, &[ONE; 7])),
    ];
    for (dialer, listener) in sets {
        let (dialed, answered) = between(dialer, listener).await;
        assert_eq!(dialed.unwrap(), answered.unwrap());
    }
}

#[tokio::test]
async fn garbage_is_refused_after_its_first_bytes_without_an_answer() {
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 1_000],
        b"\x13/multistream/1.0.0\n",
    ] {
        let (error, output) = listen_to(garbage).await;
        assert!(matches!(error, Error::Stranger), "{error:?}");
        assert!(output.is_empty());
    }
    let (error, _) = listen_to(b"ipfsclu\x07 and more").await;
    assert!(matches!(error, Error::Version(7)), "{error:?}");
    let (error, _) = listen_to(b"ipfs").await;
    assert!(matches!(error, Error::Io(_)), "{error:?}");
}

#[tokio::test]
async fn a_replayed_hello_is_refused() {
    let question = recorded().await;
    let (error, output) = listen_to(&question).await;
    assert!(matches!(error, Error::Io(_)), "{error:?}");
    assert_eq!(output.len(), ANSWER);
    // With a guess at the confirmation, and with the MAC that the listener itself has just sent.
    let guess = [question.as_slice(), &output[ANSWER - MAC..]].concat();
    let (error, output) = listen_to(&guess).await;
    assert!(matches!(error, Error::Replayed), "{error:?}");
    assert_eq!(output.len(), ANSWER);
}

#[tokio::test]
async fn a_replayed_answer_is_detected() {
    let (_, answer) = listen_to(&recorded().await).await;
    let (mut one, mut other) = pipe();
    let keys = Keys::new(ONE, &[]);
    let replay = async {
        let mut question = vec![0; QUESTION];
        other.read_exact(&mut question).await.unwrap();
        other.write_all(&answer).await.unwrap();
    };
    let (dialed, ()) = join(dial(&mut one, &keys), replay).await;
    assert!(matches!(dialed, Err(Error::Replayed)), "{dialed:?}");
}

#[tokio::test]
async fn a_relay_cannot_complete_noise_with_either_end() {
    use libp2p::core::upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade};

    let noise = |prologue: Vec<u8>| {
        let config = noise::Config::new(&Keypair::generate_ed25519()).unwrap();
        config.with_prologue(prologue)
    };
    let (one, other) = pipe();
    let (dialed, answered) = join(
        noise(vec![1; 32]).upgrade_outbound(one, "/noise"),
        noise(vec![2; 32]).upgrade_inbound(other, "/noise"),
    )
    .await;
    assert!(dialed.is_err() && answered.is_err());
}

#[tokio::test]
async fn every_changed_bit_of_a_hello_is_detected() {
    let question = recorded().await;
    // After the first MAC there is only padding.
    for at in (0..HEAD + NONCE + MAC).step_by(5) {
        let mut changed = question.clone();
        changed[at] ^= 1 << (at % 8);
        let (error, _) = listen_to(&changed).await;
        assert!(
            !matches!(error, Error::Io(_) | Error::Replayed),
            "byte {at}: {error:?}"
        );
    }
}

#[tokio::test]
async fn the_error_is_found_at_any_depth() {
    let wrapped = io::Error::other(io::Error::other(Error::Secret));
    assert!(Error::within(&wrapped).is_some_and(Error::is_about_secrets));
    let other = io::Error::other("something else");
    assert!(Error::within(&other).is_none());
}

/// Returns the outcome at a dialer with the secret `ONE` that reads these bytes and then the end.
async fn answered(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut one, mut other) = pipe();
    let say = async {
        let mut question = [0; QUESTION];
        other.read_exact(&mut question).await.unwrap();
        other.write_all(bytes).await.unwrap();
        other.close().await.unwrap();
        // A dialer that accepts the answer sends more.
        let mut more = Vec::new();
        other.read_to_end(&mut more).await.unwrap();
        assert!(more.is_empty());
    };
    let dialer = async {
        let keys = Keys::new(ONE, &[]);
        let ended = dial(&mut one, &keys).await;
        drop(one);
        ended
    };
    join(dialer, say).await.0
}

proptest::proptest! {
    #[test]
    fn no_bytes_are_accepted_without_the_secret(
        mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..QUESTION + MAC + 10),
        begins in proptest::bool::ANY,
    ) {
        if begins {
            bytes.splice(0..0, head(QUESTION));
        }
        futures::executor::block_on(async {
            listen_to(&bytes).await;
            answered(&bytes).await.unwrap_err();
        });
    }
}
