//! Every way in which a hello may go, over a pipe.

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

/// How it goes for a dialer and a listener with these secrets.
async fn between(dialer: Keys, listener: Keys) -> (Result<Vec<u8>, Error>, Result<Vec<u8>, Error>) {
    let (mut one, mut other) = pipe();
    join(dial(&mut one, &dialer), answer(&mut other, &listener)).await
}

/// What a listener with the secret `ONE` makes of these bytes, after which the other end is gone.
async fn told(bytes: &[u8]) -> (Error, Vec<u8>) {
    let (mut one, mut other) = pipe();
    let keys = Keys::new(ONE, &[]);
    let say = async {
        one.write_all(bytes).await.unwrap();
        one.close().await.unwrap();
        let mut heard = Vec::new();
        one.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let listen = async {
        let error = answer(&mut other, &keys).await.unwrap_err();
        drop(other);
        error
    };
    let (heard, error) = join(say, listen).await;
    (error, heard)
}

/// A dialer's first part, recorded.
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
async fn peers_with_the_same_secret_or_none_both_get_the_same_prologue_and_a_new_one_each_time() {
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
async fn peers_without_a_secret_in_common_both_know_that() {
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
async fn any_secret_that_both_have_will_do() {
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
async fn garbage_is_hung_up_on_after_its_first_bytes_and_hears_nothing() {
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 1_000],
        b"\x13/multistream/1.0.0\n",
    ] {
        let (error, heard) = told(garbage).await;
        assert!(matches!(error, Error::Stranger), "{error:?}");
        assert!(heard.is_empty());
    }
    let (error, _) = told(b"ipfsclu\x07 and more").await;
    assert!(matches!(error, Error::Version(7)), "{error:?}");
    let (error, _) = told(b"ipfs").await;
    assert!(matches!(error, Error::Io(_)), "{error:?}");
}

#[tokio::test]
async fn a_recorded_hello_gets_nobody_past_it() {
    let question = recorded().await;
    let (error, heard) = told(&question).await;
    assert!(matches!(error, Error::Io(_)), "{error:?}");
    assert_eq!(heard.len(), ANSWER);
    // With a guess at what follows, and with what the listener itself has just sent.
    let guess = [question.as_slice(), &heard[ANSWER - MAC..]].concat();
    let (error, heard) = told(&guess).await;
    assert!(matches!(error, Error::Replayed), "{error:?}");
    assert_eq!(heard.len(), ANSWER);
}

#[tokio::test]
async fn a_listener_that_repeats_somebody_elses_answer_is_found_out() {
    let (_, answer) = told(&recorded().await).await;
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
async fn whoever_only_passes_the_hello_on_cannot_finish_noise_with_either() {
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
async fn every_changed_bit_of_a_hello_is_noticed() {
    let question = recorded().await;
    // Beyond the first MAC there is only padding.
    for at in (0..HEAD + NONCE + MAC).step_by(5) {
        let mut changed = question.clone();
        changed[at] ^= 1 << (at % 8);
        let (error, _) = told(&changed).await;
        assert!(
            !matches!(error, Error::Io(_) | Error::Replayed),
            "byte {at}: {error:?}"
        );
    }
}

#[tokio::test]
async fn the_error_is_found_however_it_is_wrapped() {
    let wrapped = io::Error::other(io::Error::other(Error::Secret));
    assert!(Error::within(&wrapped).is_some_and(Error::is_about_secrets));
    let other = io::Error::other("something else");
    assert!(Error::within(&other).is_none());
}

/// How it goes for a dialer with the secret `ONE` that hears these bytes, after which the other end is gone.
async fn answered(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let (mut one, mut other) = pipe();
    let say = async {
        let mut question = [0; QUESTION];
        other.read_exact(&mut question).await.unwrap();
        other.write_all(bytes).await.unwrap();
        other.close().await.unwrap();
        // A dialer that was taken in would say more.
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
    fn whatever_the_bytes_they_let_nobody_in(
        mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..QUESTION + MAC + 10),
        begins in proptest::bool::ANY,
    ) {
        if begins {
            bytes.splice(0..0, head(QUESTION));
        }
        futures::executor::block_on(async {
            told(&bytes).await;
            answered(&bytes).await.unwrap_err();
        });
    }
}
