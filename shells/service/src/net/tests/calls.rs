use std::sync::atomic::{AtomicUsize, Ordering};

use futures::AsyncWriteExt;

use super::*;

/// Answers every call with its own request, each in a task.
fn echo(mut peer: Peer) {
    tokio::spawn(async move {
        while let Some(mut call) = peer.events.calls.recv().await {
            tokio::spawn(async move {
                let request = call.request.clone();
                call.respond(&request).await.unwrap();
                call.finish(Ok(())).await.unwrap();
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn values_round_trip() {
    let (one, other) = pair().await;
    let to = other.id().clone();
    echo(other);
    let answer: (String, u64) = one.net.ask(&to, "echo", &("seven", 7u64), WITHIN).await.unwrap();
    assert_eq!(answer, ("seven".to_owned(), 7));
    let wrong: Result<bool, CallError> = one.net.ask(&to, "echo", &("seven", 7u64), WITHIN).await;
    assert!(matches!(wrong, Err(CallError::Invalid(_))), "{wrong:?}");
    let long = one
        .net
        .call(&to, "echo", &vec![0; REQUEST_MAX + 1], WITHIN)
        .await
        .unwrap_err();
    assert!(
        matches!(&long, CallError::Invalid(why) if why.contains("1048577")),
        "{long}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_and_fifty_six_calls_run_at_once_and_one_more_is_refused() {
    let (one, mut other) = pair().await;
    let mut calls = Vec::new();
    for n in 0..256u32 {
        calls.push(
            one.net
                .call(other.id(), "slow", &n.to_be_bytes(), WITHIN)
                .await
                .unwrap(),
        );
    }
    let mut incoming = Vec::new();
    while incoming.len() < 256 {
        incoming.push(other.incoming().await);
    }
    let refused = one.net.call(other.id(), "slow", &[], WITHIN).await.unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused { why, .. } if why.contains("256")),
        "{refused}"
    );
    for mut call in incoming {
        let request = call.request.clone();
        call.respond(&request).await.unwrap();
        call.finish(Ok(())).await.unwrap();
    }
    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(&call.only().await.unwrap()[..], (n as u32).to_be_bytes());
    }
    one.net.call(other.id(), "slow", &[], WITHIN).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_called_side_enforces_its_own_limit() {
    let (one, mut other) = pair().await;
    let held: Vec<_> = (0..256)
        .map(|_| {
            other
                .net
                .shared
                .inbound
                .admit(one.id(), streams::Protocol::Rpc, true)
                .unwrap()
        })
        .collect();
    let refused = one
        .net
        .call(other.id(), "any", &[], WITHIN)
        .await
        .unwrap()
        .done()
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused { why, .. } if why.contains("try again later")),
        "{refused}"
    );
    assert_eq!(other.net.losses().overloaded, 1);
    drop(held);
    let call = one.net.call(other.id(), "any", &[], WITHIN).await.unwrap();
    other.incoming().await.finish(Ok(())).await.unwrap();
    call.done().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_far_beyond_the_limit_are_reset_and_counted() {
    let (one, other) = pair().await;
    let admit = |_| {
        other
            .net
            .shared
            .inbound
            .admit(one.id(), streams::Protocol::Rpc, true)
            .unwrap()
    };
    let held: Vec<_> = (0..256).map(admit).collect();
    let link = one.net.shared.links.newest(other.id()).unwrap();
    let mut opened = Vec::new();
    for _ in 0..100 {
        let mut stream = link.open(streams::Protocol::Rpc).await.unwrap();
        // The start of a frame that never ends. The stream may be reset before it is written.
        drop(stream.write_all(&[0, 0]).await);
        drop(stream.flush().await);
        opened.push(stream);
    }
    until("the streams beyond the refusals are counted", || {
        other.net.losses().overloaded == 36
    })
    .await;
    drop((opened, held));
    let sender = one.net.clone();
    let asking = tokio::spawn(async move { sender.call(&id(2), "any", b"1", WITHIN).await?.only().await });
    echo(other);
    assert_eq!(&soon("an answer", asking).await.unwrap().unwrap()[..], b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_answers_wait_for_their_readers() {
    let (one, mut other) = pair().await;
    let (mut sender, mut call) = one.net.upload(other.id(), "pipe", b"go", WITHIN).await.unwrap();
    let incoming = other.incoming().await;
    let (mut body, mut responder) = incoming.split();
    let (chunk, chunks) = (vec![5; 64 << 10], 160);
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let uploading = tokio::spawn(async move {
        for _ in 0..chunks {
            sender.send(&chunk).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
        sender.end().await.unwrap();
    });
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let answering = tokio::spawn(async move {
        for _ in 0..chunks {
            responder.respond(&vec![6; 64 << 10]).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
        }
        responder.finish(Ok(())).await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    // 160 chunks are 10 MiB; a stream that is not read holds a fraction of a mebibyte.
    let (up, down) = (sent.load(Ordering::Relaxed), answered.load(Ordering::Relaxed));
    assert!(up < 16 && down < 16, "{up} {down}");
    let mut received = 0;
    while let Some(chunk) = soon("a chunk", body.next()).await {
        received += chunk.unwrap().len();
    }
    let mut returned = 0;
    while let Some(chunk) = soon("a chunk", call.next()).await {
        returned += chunk.unwrap().len();
    }
    assert_eq!((received, returned), (chunks * (64 << 10), chunks * (64 << 10)));
    uploading.await.unwrap();
    answering.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_call_cancels_it_at_the_other_end() {
    let (one, mut other) = pair().await;
    let call = one.net.call(other.id(), "slow", &[], WITHIN).await.unwrap();
    let mut incoming = other.incoming().await;
    let early = tokio::time::timeout(Duration::from_millis(100), incoming.cancelled()).await;
    assert!(early.is_err(), "it counted as cancelled while the caller waits");
    drop(call);
    soon("the cancellation", incoming.cancelled()).await;

    let (mut sender, call) = one.net.upload(other.id(), "slow", &[], WITHIN).await.unwrap();
    sender.send(b"one").await.unwrap();
    let mut incoming = other.incoming().await;
    assert_eq!(&incoming.next().await.unwrap().unwrap()[..], b"one");
    drop((sender, call));
    assert!(soon("the cancellation", incoming.next()).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_delivered_when_the_caller_has_read_it() {
    let (one, mut other) = pair().await;
    let call = one.net.call(other.id(), "slow", &[], WITHIN).await.unwrap();
    let mut delivery = tokio::spawn(other.incoming().await.deliver());
    let early = tokio::time::timeout(Duration::from_millis(100), &mut delivery).await;
    assert!(early.is_err(), "it counted as delivered before it was read");
    soon("the answer", call.done()).await.unwrap();
    soon("the delivery", delivery).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_an_incoming_call_is_an_error_at_the_caller() {
    let (one, mut other) = pair().await;
    let call = one.net.call(other.id(), "slow", &[], WITHIN).await.unwrap();
    drop(other.incoming().await);
    let error = soon("the error", call.done()).await.unwrap_err();
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_refused_half_way_reports_the_reason() {
    let (one, mut other) = pair().await;
    let (mut sender, mut call) = one.net.upload(other.id(), "add", &[], WITHIN).await.unwrap();
    let sending = tokio::spawn(async move { while sender.send(&[1; 100_000]).await.is_ok() {} });
    let mut incoming = other.incoming().await;
    incoming.next().await.unwrap().unwrap();
    incoming.finish(Err("the disk is full".to_owned())).await.unwrap();
    soon("the end of the upload", sending).await.unwrap();
    let error = soon("the reason", call.next()).await.unwrap().unwrap_err();
    assert_eq!(error, CallError::Failed("the disk is full".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_an_error_that_names_the_time_waited() {
    let (one, other) = pair().await;
    let after = Duration::from_millis(300);
    for deadline in [Deadline::Within(after), Deadline::Silence(after)] {
        // The deadline covers the request as well, which may take that long on a busy machine.
        let error = match one.net.call(other.id(), "slow", &[], deadline).await {
            Ok(mut call) => {
                let error = soon("the deadline", call.next()).await.unwrap().unwrap_err();
                assert!(call.next().await.is_none());
                error
            }
            Err(error) => error,
        };
        assert!(
            matches!(error, CallError::Late { after: waited, .. } if waited == after),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn non_members_may_call_open_methods_only() {
    let (mut one, stranger) = (start(config(1)).await, start(config(2)).await);
    stranger.net.add_addresses(one.id(), one.net.addresses()).await;
    let refused = stranger
        .net
        .call(one.id(), "status", &[], WITHIN)
        .await
        .unwrap()
        .done()
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, CallError::Refused { why, .. } if why.contains("not a member")),
        "{refused}"
    );
    assert_eq!(one.net.losses().refused, 1);
    let call = stranger
        .net
        .call(one.id(), "open", b"let me in", WITHIN)
        .await
        .unwrap();
    let mut incoming = one.incoming().await;
    assert_eq!(
        (&incoming.from, &incoming.request[..]),
        (stranger.id(), &b"let me in"[..])
    );
    incoming.respond(b"welcome").await.unwrap();
    incoming.finish(Ok(())).await.unwrap();
    assert_eq!(&call.only().await.unwrap()[..], b"welcome");
    let long = vec![0; STRANGER_REQUEST_MAX + 1];
    let call = stranger.net.call(one.id(), "open", &long, WITHIN).await;
    let error = match call {
        Ok(call) => call.done().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, CallError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calling_an_unknown_peer_fails_at_once() {
    let one = start(config(1)).await;
    let began = std::time::Instant::now();
    let nowhere = one.net.call(&id(2), "status", &[], WITHIN).await.unwrap_err();
    assert!(
        nowhere.to_string().ends_with("no address of it is known"),
        "{nowhere}"
    );
    one.net
        .add_addresses(&id(2), vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()])
        .await;
    let refused = one.net.call(&id(2), "status", &[], WITHIN).await.unwrap_err();
    assert!(refused.to_string().contains("/ip4/127.0.0.1/tcp/1"), "{refused}");
    assert!(began.elapsed() < PATIENCE / 2, "it waited for its deadline");
}
