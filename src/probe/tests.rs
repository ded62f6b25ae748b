//! Checks from here, against servers on loopback.

use std::num::NonZeroU16;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;
use crate::error_chain::error_chain;

const SECOND: Duration = Duration::from_secs(1);

fn about() -> About {
    About { node: "web1".into(), host: "127.0.0.1".into() }
}

/// Answers one request with this text, and tells the request.
async fn server(answer: String) -> (u16, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let mut length = stream.read(&mut asked).await.unwrap();
        // The body of a form comes behind its head.
        if asked.starts_with(b"POST") && !asked[..length].windows(6).any(|six| six == b"query=") {
            length += stream.read(&mut asked[length..]).await.unwrap();
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..length]).into_owned()
    });
    (port, served)
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn check(value: serde_json::Value) -> HttpCheck {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn a_request_is_what_the_check_says() {
    let (port, served) = server(answer("204 No Content", "")).await;
    let check = check(serde_json::json!({
        "url": format!("http://{{host}}:{port}/up/{{node}}?a=b"), "method": "HEAD", "headers": { "X-Check": "yes", "host": "shop" },
    }));
    http(&check, &about(), SECOND).await.unwrap();
    let asked = served.await.unwrap().to_lowercase();
    assert!(asked.starts_with("head /up/web1?a=b http/1.1\r\n"), "{asked}");
    assert!(asked.contains("\r\nx-check: yes\r\n") && asked.contains("\r\nhost: shop\r\n"), "{asked}");
}

#[tokio::test]
async fn a_failure_says_what_came() {
    let ask = async |text: String, more: serde_json::Value| {
        let (port, _served) = server(text).await;
        let mut value = serde_json::json!({ "url": format!("http://127.0.0.1:{port}/") });
        value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        http(&check(value), &about(), SECOND).await.map_err(|error| error_chain(&error))
    };
    let none = serde_json::json!({});
    let said = ask(answer("503 Unavailable", "the shop\nis closed"), none.clone()).await.unwrap_err();
    assert_eq!(said, "status 503, expected 200 to 399; it says: the shop is closed");
    let moved = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(moved.into(), none.clone()).await, Ok(()), "no redirect is followed");
    let wanted = serde_json::json!({ "body": "^open", "status": [200] });
    assert_eq!(ask(answer("200 OK", "open all day"), wanted.clone()).await, Ok(()));
    let said = ask(answer("200 OK", "closed"), wanted.clone()).await.unwrap_err();
    assert_eq!(said, "the body does not match \"^open\"; it says: closed");
    let said = ask(answer("201 Created", "open"), wanted).await.unwrap_err();
    assert_eq!(said, "status 201, expected 200; it says: open");
    let said = ask("220 mail.example.org ESMTP\r\n".into(), none.clone()).await.unwrap_err();
    assert!(said.starts_with("no answer of HTTP from 127.0.0.1"), "{said}");
    let endless = "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nopen";
    assert_eq!(ask(endless.into(), none).await, Ok(()), "what is not looked at is not waited for");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_refuses() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port: NonZeroU16 = listener.local_addr().unwrap().port().try_into().unwrap();
    let check: TcpCheck = serde_json::from_value(serde_json::json!({ "port": port })).unwrap();
    tcp(&check, &about(), SECOND).await.unwrap();
    drop(listener);
    let said = error_chain(&tcp(&check, &about(), SECOND).await.unwrap_err());
    assert!(
        said.starts_with(&format!("cannot connect to 127.0.0.1 port {port}: Connection refused")),
        "{said}"
    );
}

#[tokio::test]
async fn a_silent_server_is_waited_for_no_longer_than_one_try_may_take() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let within = Duration::from_millis(100);
    let ended = http(&check(serde_json::json!({ "url": url })), &about(), within).await;
    assert!(matches!(ended, Err(ProbeError::Deadline { .. })), "{ended:?}");
}

#[tokio::test]
async fn a_question_to_prometheus_is_a_form() {
    let empty = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
    let (port, served) = server(answer("200 OK", empty)).await;
    let check: PrometheusCheck = serde_json::from_value(serde_json::json!({
        "url": format!("http://127.0.0.1:{port}/prom/"), "query": "ALERTS{node=\"{node}\"} > 0", "expect": "empty",
    }))
    .unwrap();
    prometheus(&check, &about(), SECOND).await.unwrap();
    let asked = served.await.unwrap();
    assert!(asked.starts_with("POST /prom/api/v1/query HTTP/1.1\r\n"), "{asked}");
    assert!(asked.ends_with("query=ALERTS%7Bnode%3D%22web1%22%7D%20%3E%200"), "{asked}");
}

/// Files of `tests/tls`: a server's certificate for `shop.example.org`, its key, and whose signature it has.
fn pem(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Answers every request over TLS, as `shop.example.org`, with the `Host` that it was asked by.
async fn shop() -> u16 {
    let provider = std::sync::Arc::new(ring::default_provider());
    let certificates = CertificateDer::pem_file_iter(pem("shop.pem")).unwrap().map(Result::unwrap).collect();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(pem("shop.key")).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            let asked = String::from_utf8_lossy(&asked[..length]).to_lowercase();
            let host = asked.lines().find(|line| line.starts_with("host: ")).unwrap().to_owned();
            stream.write_all(answer("200 OK", &host).as_bytes()).await.unwrap();
            let _ = stream.shutdown().await;
        }
    });
    port
}

#[tokio::test]
async fn a_server_of_tls_has_to_prove_who_it_is_unless_the_check_says_otherwise() {
    let port = shop().await;
    let ask = async |tls: serde_json::Value, body: &str| {
        let url = format!("https://127.0.0.1:{port}/");
        let check = check(serde_json::json!({ "url": url, "tls": tls, "body": body }));
        http(&check, &about(), SECOND * 5).await.map_err(|error| error_chain(&error))
    };
    let authority = pem("authority.pem");
    let proven = serde_json::json!({ "caFile": authority, "serverName": "shop.example.org" });
    assert_eq!(ask(proven, &format!("host: shop.example.org:{port}")).await, Ok(()));
    let unnamed = ask(serde_json::json!({ "caFile": authority }), "").await.unwrap_err();
    assert!(unnamed.starts_with("no TLS with 127.0.0.1: ") && unnamed.contains("not valid for"), "{unnamed}");
    let other = serde_json::json!({ "serverName": "shop.example.org" });
    let unknown = ask(other, "").await.unwrap_err();
    assert!(
        unknown.contains("UnknownIssuer") || unknown.contains("no certificate of an authority"),
        "{unknown}"
    );
    assert_eq!(ask(serde_json::json!({ "verify": false }), &format!("host: 127.0.0.1:{port}")).await, Ok(()));
    let missing = ask(serde_json::json!({ "caFile": "/nowhere.pem" }), "").await.unwrap_err();
    assert!(missing.starts_with("no certificate of an authority in /nowhere.pem: "), "{missing}");
}
