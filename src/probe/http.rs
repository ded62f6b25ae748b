//! One request of HTTP/1.1 over a connection of its own.

use std::fmt::Write;

use ::http::uri::{Authority, Scheme};
use ::http::{Response, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::AbortOnDropHandle;

use super::{ProbeError, connect, tls};
use crate::model::health::{Headers, Tls};

/// What is asked.
pub struct Request<'a> {
    pub url: String,
    pub method: String,
    pub headers: &'a Headers,
    pub tls: &'a Tls,
    /// A field of a form, and what is written into it.
    pub form: Option<(&'static str, &'a str)>,
}

/// An answer whose body is still to come.
pub struct Answer {
    response: Response<Incoming>,
    host: String,
    /// Carries the body; ended with the answer.
    _connection: AbortOnDropHandle<()>,
}

/// Sends a request and waits for the head of its answer.
pub async fn ask(request: Request<'_>) -> Result<Answer, ProbeError> {
    let wrong = |said: String| ProbeError::Request { url: request.url.clone(), said };
    let uri: Uri = request.url.parse().map_err(|error: ::http::uri::InvalidUri| wrong(error.to_string()))?;
    let authority = uri.authority().ok_or_else(|| wrong("it has no host".into()))?.clone();
    let secure = uri.scheme() == Some(&Scheme::HTTPS);
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = connect(authority.host(), port).await?;
    let head = head(&request, &uri, &authority).map_err(|error| wrong(error.to_string()))?;
    if !secure {
        return send(stream, head, authority.host()).await;
    }
    let name = request.tls.server_name.as_deref().unwrap_or_else(|| authority.host());
    send(tls::over(stream, name, request.tls).await?, head, authority.host()).await
}

fn head(
    request: &Request<'_>,
    uri: &Uri,
    authority: &Authority,
) -> Result<hyper::Request<Full<Bytes>>, ::http::Error> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // Whose certificate is wanted is who is asked.
    let host = match (&request.tls.server_name, authority.port_u16()) {
        (Some(name), Some(port)) => format!("{name}:{port}"),
        (Some(name), None) => name.clone(),
        (None, _) => authority.to_string(),
    };
    let mut head = hyper::Request::builder().method(request.method.as_str()).uri(path);
    for (name, value) in request.headers.iter() {
        head = head.header(name, value);
    }
    let named = |name: header::HeaderName| {
        request.headers.iter().any(|(own, _)| name.as_str().eq_ignore_ascii_case(own))
    };
    if !named(header::HOST) {
        head = head.header(header::HOST, host);
    }
    if !named(header::USER_AGENT) {
        head = head.header(header::USER_AGENT, concat!("driftless/", env!("CARGO_PKG_VERSION")));
    }
    match request.form {
        None => head.body(Full::default()),
        Some((field, text)) => head
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(format!("{field}={}", encoded(text)))),
    }
}

/// Text in a form, in which only these bytes mean themselves (RFC 3986, 2.3).
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    head: hyper::Request<Full<Bytes>>,
    host: &str,
) -> Result<Answer, ProbeError> {
    let failed = |source| ProbeError::Http { host: host.to_owned(), source };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // How it ended is told by whoever waits for the answer.
    let connection = AbortOnDropHandle::new(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(head).await.map_err(failed)?;
    Ok(Answer { response, host: host.to_owned(), _connection: connection })
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// So much of the body as comes, and no more than `most` bytes.
    pub async fn beginning(mut self, most: usize) -> String {
        let mut body = Vec::new();
        while body.len() < most
            && let Some(Ok(frame)) = self.response.frame().await
        {
            body.extend(frame.into_data().unwrap_or_default());
        }
        body.truncate(most);
        String::from_utf8_lossy(&body).into_owned()
    }

    /// All of the body.
    pub async fn whole(mut self, most: usize) -> Result<String, ProbeError> {
        let mut body = Vec::new();
        while let Some(frame) = self.response.frame().await {
            let frame = frame.map_err(|source| ProbeError::Http { host: self.host.clone(), source })?;
            body.extend(frame.into_data().unwrap_or_default());
            if body.len() > most {
                return Err(ProbeError::TooLong { host: self.host, most });
            }
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}
