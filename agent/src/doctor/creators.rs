//! Whether those who are configured to be asked about jobs, pods and containers can be.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::{Access, access};

use super::node::found;
use super::{Finding, Grade};
use crate::attribute::CreatorsConfig;

pub(super) fn examine(config: &CreatorsConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, path) in [
        ("docker", &config.docker.socket),
        ("podman", &config.podman.socket),
        ("cri", &config.cri.socket),
        ("kubelet", &config.kubelet.pod_resources),
    ] {
        findings.extend(path.as_deref().map(|path| socket(id, path)));
    }
    findings.extend(
        config
            .slurm
            .job_command
            .first()
            .map(|program| job_command(Path::new(program))),
    );
    findings
}

fn socket(id: &'static str, path: &Path) -> Finding {
    let shown = path.display();
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) => {
            return found(
                id,
                Grade::Fail,
                format!("{shown}: {error}: what it knows is not attributed"),
            )
            .advise("start it, or mend the socket's path in attribution.creators");
        }
    };
    if !about.file_type().is_socket() {
        return found(id, Grade::Fail, format!("{shown} is no socket"))
            .advise("mend the socket's path in attribution.creators");
    }
    if access(path, Access::WRITE_OK).is_err() {
        return found(
            id,
            Grade::Fail,
            format!("{shown} may not be opened by the agent"),
        )
        .advise("give the agent's unit the socket's group (SupplementaryGroups=)");
    }
    // The agent believes only what root or its own user says there.
    let own = rustix::process::geteuid().as_raw();
    let peer = UnixStream::connect(path)
        .and_then(|stream| Ok(rustix::net::sockopt::socket_peercred(&stream)?.uid.as_raw()));
    match peer {
        Ok(uid) if [0, own].contains(&uid) => {
            found(id, Grade::Ok, format!("{shown} takes connections"))
        }
        Ok(uid) => found(
            id,
            Grade::Fail,
            format!("{shown} is answered by uid {uid}, who is not believed"),
        )
        .advise("name the socket of the runtime that runs as root"),
        Err(error) => found(
            id,
            Grade::Fail,
            format!("{shown}: {error}: what it knows is not attributed"),
        )
        .advise("start what listens there"),
    }
}

/// What runs as the agent and names accounts must not be another's to write, nor anything on the way to it.
fn job_command(program: &Path) -> Finding {
    let id = "job_command";
    let shown = program.display();
    match fs::metadata(program) {
        Ok(about) if about.is_file() => {}
        Ok(_) => {
            return found(id, Grade::Fail, format!("{shown} is no file"))
                .advise("mend attribution.creators.slurm.job_command");
        }
        Err(error) => {
            return found(
                id,
                Grade::Fail,
                format!("{shown}: {error}: jobs have no account"),
            )
            .advise("install Slurm's commands, or mend attribution.creators.slurm.job_command");
        }
    }
    if access(program, Access::EXEC_OK).is_err() {
        return found(
            id,
            Grade::Fail,
            format!("{shown} may not be run by the agent"),
        )
        .advise("chmod a+rx");
    }
    let own = rustix::process::geteuid().as_raw();
    let loose = fs::canonicalize(program).ok().and_then(|real| {
        let loose = real.ancestors().find(|part| {
            fs::metadata(part).is_ok_and(|about| {
                let sticky = about.is_dir() && about.mode() & 0o1000 != 0;
                ![0, own].contains(&about.uid()) || (about.mode() & 0o022 != 0 && !sticky)
            })
        });
        loose.map(|part| part.display().to_string())
    });
    match loose {
        Some(part) => found(
            id,
            Grade::Fail,
            format!("others may change {part}, and with it whose jobs are"),
        )
        .advise("leave the program and the folders above it to root (chown root, chmod go-w)"),
        None => found(id, Grade::Ok, format!("{shown} can be run")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn rule_18_who_is_to_be_asked_is_there_and_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let program = at("scontrol");
        assert_eq!(job_command(&program).grade, Grade::Fail);
        fs::write(&program, "#!/bin/sh\n").unwrap();
        let mode = |mode| fs::set_permissions(&program, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o644);
        assert!(job_command(&program).found.contains("may not be run"));
        mode(0o777);
        assert!(job_command(&program).found.contains("others may change"));
        mode(0o755);
        assert_eq!(
            job_command(&program).grade,
            Grade::Ok,
            "{:?}",
            job_command(&program)
        );
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(job_command(&program).grade, Grade::Fail);

        assert_eq!(socket("docker", &at("none.sock")).grade, Grade::Fail);
        assert!(socket("docker", &program).found.contains("no socket"));
        let listener = UnixListener::bind(at("d.sock")).unwrap();
        assert_eq!(socket("docker", &at("d.sock")).grade, Grade::Ok);
        drop(listener);
        assert_eq!(
            socket("docker", &at("d.sock")).grade,
            Grade::Fail,
            "nobody listens"
        );
    }
}
