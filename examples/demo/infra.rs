//! The infrastructure repository of the story: its files, as somebody would write them who comes from nixus.

use std::collections::BTreeMap;

use driftless_lab::Node;

/// The machines.
pub const NODES: [&str; 3] = ["web1", "web2", "db1"];

/// What every machine is.
pub const COMMON: &str = r#"# What every machine has.
{ pkgs, ... }: {
  environment.systemPackages = [ pkgs.git ];
  environment.etc.motd.text = "This machine is kept by driftless.\n";
}
"#;

/// The same, later: a change for all.
pub const COMMON_LATER: &str = r#"# What every machine has.
{ pkgs, ... }: {
  environment.systemPackages = [ pkgs.git pkgs.curl ];
  environment.etc.motd.text = "This machine is kept by driftless.\n";
}
"#;

/// What the web servers are.
pub const WEB: &str = r#"# What both web servers are.
{ pkgs, ... }: {
  environment.systemPackages = [ pkgs.nginx ];
}
"#;

/// The same, later: a change for two.
pub const WEB_LATER: &str = r#"# What both web servers are.
{ pkgs, ... }: {
  environment.systemPackages = [ pkgs.nginx pkgs.hello ];
  environment.etc."nginx/http3.conf".text = "listen 443 quic;\n";
}
"#;

/// What the database server is.
pub const DB: &str = r#"# What the database server is.
{ ... }: {
  environment.etc."postgresql/listen".text = "10.0.0.0/8\n";
}
"#;

/// What one web server has of its own: nothing yet.
pub const WEB2: &str = r#"# What only web2 is.
{ ... }: {
  imports = [ ./web.nix ];
}
"#;

/// The mistake. The lab has a word for it, because its sshd is not NixOS's.
pub const WEB2_LOCKED: &str = r#"# What only web2 is.
{ ... }: {
  imports = [ ./web.nix ];
  # As `services.openssh.enable = false` would: sshd is stopped and its sessions are killed.
  lab.faults.killSsh = true;
}
"#;

/// The deployment file: which machines there are, how they are reached, which file says what each is.
pub fn deployment(nodes: &BTreeMap<String, Node>) -> String {
    let mut text = String::from(
        r#"import <driftless> { } ({ ... }: {
  # How long a change by hand may stay before it is healed; 5 minutes if nothing is said.
  rollout.healAfter = "5s";

  defaults = { name, ... }: {
    hasFastConnection = true;
    switchTimeout = "20s";   # an activation that takes longer is rolled back,
    successTimeout = "8s";   # and so is one after which nobody can log in for so long
    configuration = {
      imports = [ ./common.nix ];
      networking.hostName = name;
    };
  };
"#,
    );
    for name in NODES {
        let file = if name == "web1" {
            "web"
        } else if name == "web2" {
            "web2"
        } else {
            "db"
        };
        if let Some(node) = nodes.get(name) {
            text += &format!(
                "\n  nodes.{name} = {{\n    host = \"root@{}\";\n    hostKeys = [ \"{}\" ];\n    configuration = ./{file}.nix;\n  }};\n",
                node.address(),
                node.host_key()
            );
        }
    }
    text + "})\n"
}
