//! What deployments and switches say of health checks is read, and what they say wrongly is told by name.

use serde_json::json;

use super::*;

fn read(value: serde_json::Value) -> Result<HealthChecks, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn what_switches_were_started_with_before_is_still_understood() {
    let checks: Checks =
        serde_json::from_value(json!({ "units": ["a.service"], "commands": { "up": "true" } })).unwrap();
    assert_eq!(checks.commands["up"], "true".to_owned().into());
    assert_eq!(
        checks.list().iter().map(Check::to_string).collect::<Vec<_>>(),
        ["unit a.service", "command up"]
    );
}

#[test]
fn every_kind_is_read_and_written_the_same() {
    let pace = json!({ "period": 2, "timeout": 5, "successes": 3 });
    let with_pace = |mut value: serde_json::Value| {
        value.as_object_mut().unwrap().extend(pace.as_object().unwrap().clone());
        value
    };
    let checks = read(json!({
        "units": ["a.service"],
        "commands": { "up": with_pace(json!({ "command": "true" })) },
        "http": { "web": with_pace(json!({
            "url": "https://{host}:8443/{node}", "from": "node", "method": "HEAD", "headers": { "Host": "x" },
            "status": [200, 204], "body": "^ok", "tls": { "verify": false },
        })) },
        "tcp": { "db": with_pace(json!({ "port": 5432 })) },
        "prometheus": { "errors": with_pace(json!({ "url": "http://p:9090", "query": "up == 0", "expect": "non-empty" })) },
        "before": { "http": { "lb": { "url": "http://lb/", "status": 200 } } },
        "interval": 30,
    }))
    .unwrap();
    let three = Pace {
        period: Duration::from_secs(2),
        timeout: Duration::from_secs(5),
        successes: 3.try_into().unwrap(),
    };
    assert!(checks.after.list().iter().skip(1).all(|check| check.pace == three));
    assert_eq!(checks.interval(), Duration::from_secs(30));
    assert_eq!(read(serde_json::to_value(&checks).unwrap()), Ok(checks));
}

#[test]
fn what_is_wrong_is_said_with_the_name_of_the_check() {
    let http = |more: serde_json::Value| {
        let mut check = json!({ "url": "http://x/" });
        check.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "http": { "web": check } })
    };
    let cases = [
        (http(json!({ "from": "moon" })), "unknown variant `moon`"),
        (http(json!({ "url": "" })), "is not a URL of a health check"),
        (http(json!({ "url": "ftp://x/" })), "is not a URL of a health check"),
        (http(json!({ "url": "http://a:b@x/" })), "is not a URL of a health check"),
        (http(json!({ "body": "(" })), "\"(\" is not a regular expression: unclosed group"),
        (http(json!({ "status": 99 })), "99"),
        (http(json!({ "successes": 0 })), "nonzero"),
        (http(json!({ "colour": "red" })), "unknown field `colour`"),
        (http(json!({ "method": "get" })), "is not a method"),
        (json!({ "tcp": { "web": { "port": 0 } } }), "nonzero"),
        (
            json!({ "prometheus": { "web": { "url": "http://p", "query": "up", "expect": "some" } } }),
            "unknown variant `some`",
        ),
        (
            json!({ "prometheus": { "web": { "url": "http://p", "query": "", "expect": "empty" } } }),
            "is not a text",
        ),
        (json!({ "commands": { "web": { "command": "true", "colour": 1 } } }), "unknown field `colour`"),
    ];
    for (value, said) in cases {
        let error = read(value.clone()).expect_err(&value.to_string());
        assert!(error.contains(said) && error.contains("\"web\""), "{error}, not {said}");
    }
    let unknown = read(json!({ "colours": {} })).unwrap_err();
    assert!(unknown.contains("colours"), "{unknown}");
}

#[test]
fn what_the_node_says_counts_more_than_what_the_fleet_says() {
    let own = read(
        json!({ "units": ["a"], "commands": { "x": "own" }, "before": { "tcp": { "t": { "port": 1 } } } }),
    );
    let fleet = json!({ "units": ["a", "b"], "commands": { "x": "fleet", "y": "fleet" },
        "before": { "tcp": { "t": { "port": 2 } } }, "interval": 5 });
    let both = own.unwrap().and_of_fleet(&read(fleet).unwrap());
    assert_eq!(both.after.units, ["a", "b"]);
    assert_eq!(both.after.commands["x"].command, "own");
    assert_eq!(both.after.commands["y"].command, "fleet");
    assert_eq!(both.before.tcp["t"].port.get(), 1);
    assert_eq!(both.interval(), Duration::from_secs(5));
}

#[test]
fn an_address_of_ipv6_stands_in_brackets_in_a_url() {
    let url: Url = "http://{host}:80/{node}".parse().unwrap();
    assert_eq!(url.filled("web", "fd00::1"), "http://[fd00::1]:80/web");
    assert_eq!(url.filled("web", "[fd00::1]"), "http://[fd00::1]:80/web");
    assert_eq!(url.filled("web", "192.0.2.7"), "http://192.0.2.7:80/web");
}

fn asks(expect: &str) -> PrometheusCheck {
    serde_json::from_value(json!({ "url": "http://p:9090", "query": "ALERTS", "expect": expect })).unwrap()
}

// As Prometheus 2.42 answers.
const NOTHING: &str = r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#;
const FOUND: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"up","instance":"127.0.0.1:1","job":"gone"},"value":[1700000000.123,"0"]}]}}"#;
const OWN: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"ALERTS","alertname":"DriftlessNodeFailed","alertstate":"firing"},"value":[1700000000.123,"1"]}]}}"#;

#[test]
fn what_prometheus_finds_is_judged_without_the_alerts_of_driftless_itself() {
    assert_eq!(asks("empty").judge(200, NOTHING), Ok(()));
    assert_eq!(asks("non-empty").judge(200, FOUND), Ok(()));
    assert_eq!(asks("empty").judge(200, OWN), Ok(()));
    assert_eq!(asks("non-empty").judge(200, OWN), Err(Unfit::Nothing));
    assert_eq!(
        asks("non-empty").judge(200, NOTHING).unwrap_err().to_string(),
        "expected something, found nothing"
    );
    let said = asks("empty").judge(200, FOUND).unwrap_err().to_string();
    let expected = r#"expected nothing, found 1: {"__name__":"up","instance":"127.0.0.1:1","job":"gone"} 0"#;
    assert_eq!(said, expected);
}

#[test]
fn a_prometheus_that_gives_no_clear_answer_has_not_answered() {
    let failed = r#"{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:4: parse error"}"#;
    let cases = [
        (400, failed, "parse error"),
        (
            200,
            r#"{"status":"success","data":{"resultType":"vector","result":[]},"warnings":["one store is down"]}"#,
            "one store is down",
        ),
        (
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1700000000.1,"1"]}}"#,
            "asks for a scalar",
        ),
        (200, r#"{"status":"success","data":{"resultType":"vector","result":null}}"#, "no list"),
        (200, r#"{"status":"success"}"#, "no data"),
        (503, "Service Unavailable", "status 503"),
        (200, "<html>It works!</html>", "none of Prometheus"),
        (502, NOTHING, "status 502"),
    ];
    for (status, body, words) in cases {
        for expect in ["empty", "non-empty"] {
            let said = asks(expect).judge(status, body).unwrap_err().to_string();
            assert!(said.contains(words), "{said}, not {words}");
        }
    }
}
