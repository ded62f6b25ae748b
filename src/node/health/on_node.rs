//! Checks that the node asks itself: units, commands, and what it reaches by its own curl and bash. A managed node runs what
//! its own system says of a check, and is told no more than its name.

use std::time::Duration;

use super::{Failed, Moment, Node, short};
use crate::error_chain::error_chain;
use crate::model::health::{Check, CommandCheck, HttpCheck, TcpCheck, What};
use crate::node::installed::{Program, Sure};
use crate::node::protocol::Privilege;
use crate::node::{NodeError, Output};
use crate::probe::{About, MOST_BODY};

const ATTEMPT: &str = "run a health check";
/// After its deadline a program gets so long to end.
const AFTER: Duration = Duration::from_secs(3);
/// What `driftless-node` says of a check that its system does not declare.
const UNKNOWN: &str = "the node's system has no health check";
/// What one says that knows no such kind of checks.
const OLDER: &str = "the arguments of check are not what they have to be";
/// The exit code of timeout(1) that had to end its command.
const TIMED_OUT: i32 = 124;

/// What it starts ends with it, also where it hangs: nothing is left behind that a later try would wait for.
const COMMAND: &str = r#"exec timeout -k 1 "$1" sh -c "$2""#;
/// The configuration comes by stdin, where no list of processes shows it. stdout is the beginning of the body.
const HTTP: &str = r#"command -v curl >/dev/null || { echo 'there is no curl on the node; ask from the controller, or install it' >&2; exit 127; }
{ curl -q --config - 2>&3; echo "driftless-exit $?" >&3; } 3>&2 | head -c "$1""#;
const TCP: &str = r#"command -v bash >/dev/null || { echo 'there is no bash on the node; ask from the controller' >&2; exit 127; }
exec timeout -k 1 "$1" bash -c 'exec 3<>"/dev/tcp/$1/$2"' bash "$2" "$3""#;

impl Node {
    pub(super) async fn check_on_node(
        &self,
        check: &Check<'_>,
        moment: Moment,
        about: &About,
        longest: Duration,
    ) -> Result<(), Failed> {
        match self.link().program().await {
            (Program::Installed, Sure::Known) => self.check_by_name(check, moment, longest).await,
            (Program::Shell | Program::Installed, _) => match check.what {
                What::Unit => self.check_unit(check.name, longest).await,
                What::Command(command) => self.check_command(command, longest).await,
                What::Http(http) => self.check_http(http, about, longest).await,
                What::Tcp(tcp) => self.check_tcp(tcp, about, longest).await,
                // Never asked from a node.
                What::Prometheus(_) => Ok(()),
            },
        }
    }

    /// By the node's own word for the check: what runs is what its system says, not what was sent.
    async fn check_by_name(
        &self,
        check: &Check<'_>,
        moment: Moment,
        longest: Duration,
    ) -> Result<(), Failed> {
        // The node sees by itself what needs root.
        let name = match (moment, check.what) {
            // `ofNode` of nix/health-checks.nix.
            (Moment::Before, What::Command(_) | What::Http(_) | What::Tcp(_)) => {
                format!("before.{}", check.name)
            }
            (Moment::Before, What::Unit | What::Prometheus(_)) | (Moment::After, _) => check.name.to_owned(),
        };
        let words = ["check", check.kind(), &name];
        let reply = self.ask(ATTEMPT, Privilege::Login, &words, longest + AFTER).await.map_err(unasked)?;
        if let What::Http(http) = check.what {
            let body = reply.all("body").collect::<Vec<_>>().join("\n");
            return judge(http, reply.all("curl"), &body);
        }
        match reply.get("code") {
            Some("0") => Ok(()),
            code => Err(code_and_words(code.unwrap_or("unknown"), reply.get("said").unwrap_or_default())),
        }
    }

    async fn check_unit(&self, unit: &str, longest: Duration) -> Result<(), Failed> {
        let output = self.words(&["systemctl", "is-active", "--", unit], &[], longest).await?;
        passed(&output, longest)
    }

    async fn check_command(&self, check: &CommandCheck, longest: Duration) -> Result<(), Failed> {
        let escalation = self.link().escalation().await.map_err(unasked)?;
        let seconds = seconds(longest);
        let words = ["sh", "-c", COMMAND, "sh", &seconds, &check.command];
        let words: Vec<&str> = escalation.iter().map(String::as_str).chain(words).collect();
        let output = self.words(&words, &[], longest).await?;
        passed(&output, longest)
    }

    async fn check_tcp(&self, check: &TcpCheck, about: &About, longest: Duration) -> Result<(), Failed> {
        let host = check
            .host
            .as_ref()
            .map_or_else(|| "localhost".into(), |host| host.filled(&about.node, &about.host));
        let (seconds, port) = (seconds(longest), check.port.to_string());
        let output = self.words(&["sh", "-c", TCP, "sh", &seconds, &host, &port], &[], longest).await?;
        passed(&output, longest)
    }

    async fn check_http(&self, check: &HttpCheck, about: &About, longest: Duration) -> Result<(), Failed> {
        let config = curl_config(check, about, longest);
        let most = MOST_BODY.to_string();
        let output = self.words(&["sh", "-c", HTTP, "sh", &most], config.as_bytes(), longest).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        judge(check, said.lines(), &String::from_utf8_lossy(&output.stdout))
    }

    async fn words(&self, words: &[&str], input: &[u8], longest: Duration) -> Result<Output, Failed> {
        let line = shlex::try_join(words.iter().copied()).map_err(|error| Failed::Said(error.to_string()))?;
        self.link().shell(&self.name, ATTEMPT, &line, input, longest + AFTER).await.map_err(unasked)
    }
}

fn seconds(longest: Duration) -> String {
    longest.as_secs().max(1).to_string()
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn unasked(error: NodeError) -> Failed {
    let said = short(&error_chain(&error));
    if said.contains(OLDER) {
        let way_out = "the node's driftless-node is of an older version, or takes no check of that name";
        return Failed::Unknown(way_out.into());
    }
    if said.contains(UNKNOWN) { Failed::Unknown(said) } else { Failed::Said(said) }
}

fn passed(output: &Output, longest: Duration) -> Result<(), Failed> {
    match output.code {
        0 => Ok(()),
        TIMED_OUT => Err(Failed::Said(format!("no end within {} s", longest.as_secs().max(1)))),
        code => {
            let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
            Err(code_and_words(&code.to_string(), &String::from_utf8_lossy(&said)))
        }
    }
}

fn code_and_words(code: &str, said: &str) -> Failed {
    let said = said.trim();
    Failed::Said(short(&format!("exit code {code}{}{said}", if said.is_empty() { "" } else { ": " })))
}

/// Judges what curl printed: the beginning of the body on stdout, its own words and `write-out` on stderr.
fn judge<'a>(check: &HttpCheck, said: impl Iterator<Item = &'a str>, body: &str) -> Result<(), Failed> {
    let (mut status, mut words) = (None, Vec::new());
    for line in said {
        match (line.strip_prefix("driftless-status "), line.strip_prefix("driftless-exit ")) {
            (Some(code), _) => status = code.trim().parse::<u16>().ok().filter(|code| *code > 0),
            // An error there is has words of its own; that nobody read on is none.
            (None, Some(_)) => {}
            (None, None) => words.push(line),
        }
    }
    let words = short(&words.join(" "));
    match status {
        Some(status) => check.judge(status, body).map_err(|unfit| Failed::Said(short(&unfit.to_string()))),
        None if words.is_empty() => Err(Failed::Said("curl says nothing".into())),
        None => Err(Failed::Said(words)),
    }
}

/// The request as a file of configuration, curl(1). `nix/health-checks.nix` writes the same for managed nodes.
fn curl_config(check: &HttpCheck, about: &About, longest: Duration) -> String {
    let mut lines = vec!["silent".to_owned(), "show-error".into(), "globoff".into()];
    let mut set = |key: &str, value: &str| lines.push(format!("{key} = \"{}\"", escaped(value)));
    set("noproxy", "*");
    set("proto", "=http,https");
    set("max-time", &seconds(longest));
    set("write-out", "%{stderr}driftless-status %{http_code}\n");
    for (name, value) in check.headers.iter() {
        // So it is sent, too, where it has no value.
        let header = if value.is_empty() { format!("{name};") } else { format!("{name}: {value}") };
        set("header", &header);
    }
    if let Some(file) = &check.tls.ca_file {
        set("cacert", file);
    }
    let url = check.url.filled(&about.node, &about.host);
    match check.tls.server_name.as_deref().and_then(|name| renamed(&url, name)) {
        Some((url, address)) => {
            set("connect-to", &format!("::{address}"));
            set("url", &url);
        }
        None => set("url", &url),
    }
    if check.method.as_str() == "HEAD" {
        set("output", "/dev/null");
        lines.push("head".into());
    } else {
        set("request", check.method.as_str());
    }
    if !check.tls.verify {
        lines.push("insecure".into());
    }
    lines.join("\n") + "\n"
}

/// The URL by another name, and the address that it had: `host:port`.
fn renamed(url: &str, name: &str) -> Option<(String, String)> {
    let uri: http::Uri = url.parse().ok()?;
    let scheme = uri.scheme_str()?;
    let (host, path) = (uri.host()?, uri.path_and_query().map_or("/", |path| path.as_str()));
    let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    Some((format!("{scheme}://{name}:{port}{path}"), format!("{host}:{port}")))
}

/// A value between quotes, curl(1), --config.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\t', "\\t")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn about() -> About {
        About { node: "web1".into(), host: "fd00::7".into() }
    }

    fn check(value: serde_json::Value) -> HttpCheck {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_a_managed_node_says_of_a_check_that_it_does_not_know_is_understood() {
        let program = include_str!("../../../nix/node/driftless-node.sh");
        assert_eq!(program.matches(UNKNOWN).count(), 2, "of commands, and of requests and ports");
        assert!(program.contains("the arguments of $verb are not what they have to be"));
        assert!(program.contains(&format!("MOST_BODY={MOST_BODY}\n")));
    }

    #[test]
    fn a_request_is_told_to_curl_in_its_own_words() {
        let check = check(serde_json::json!({
            "url": "https://{host}/{node}?q=%20", "headers": { "X": "a \"b\" \\c", "Y": "" },
            "tls": { "caFile": "/etc/ca.pem", "serverName": "shop.example.org" },
        }));
        let config = curl_config(&check, &about(), Duration::from_secs(5));
        let expected = r#"silent
show-error
globoff
noproxy = "*"
proto = "=http,https"
max-time = "5"
write-out = "%{stderr}driftless-status %{http_code}\n"
header = "X: a \"b\" \\c"
header = "Y;"
cacert = "/etc/ca.pem"
connect-to = "::[fd00::7]:443"
url = "https://shop.example.org:443/web1?q=%20"
request = "GET"
"#;
        assert_eq!(config, expected);
    }

    #[test]
    fn what_curl_says_is_judged_by_status_and_body() {
        let check = check(serde_json::json!({ "url": "http://x/", "body": "^ok" }));
        let judged = |said: &str, body: &str| judge(&check, said.lines(), body);
        let wrote = "curl: (23) Failed writing body\ndriftless-status 200\ndriftless-exit 23";
        assert_eq!(judged(wrote, "ok and more"), Ok(()), "nobody reads on");
        let refused = "curl: (7) Failed to connect to x port 80\ndriftless-status 000\ndriftless-exit 7";
        assert_eq!(judged(refused, ""), Err(Failed::Said("curl: (7) Failed to connect to x port 80".into())));
        assert!(
            matches!(judged("driftless-status 200", "no"), Err(Failed::Said(said)) if said.contains("^ok"))
        );
    }

    #[test]
    fn nothing_that_a_check_says_is_run_by_a_shell() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let evil = format!("$(touch {0}) `touch {0}`; touch {0} #'\"", mark.display());
        let line = shlex::try_join(["sh", "-c", TCP, "sh", "2", &evil, "1"]).unwrap();
        let ended = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status().unwrap();
        assert!(!ended.success() && !mark.exists());
        let said =
            Command::new("/bin/sh").args(["-c", HTTP, "sh", "9"]).env("PATH", "/nowhere").output().unwrap();
        assert!(String::from_utf8_lossy(&said.stderr).contains("there is no curl on the node"));
    }
}
