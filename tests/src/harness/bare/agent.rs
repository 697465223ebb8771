//! A running agent, and what is asked of it over its API.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, ExitStatus},
    time::{Duration, Instant},
};

use crn_agent::testing::client::{Client, ClientError};
use crn_api_types::{ErrorCode, InstanceView, Ports, VolumeState, VolumeView};
use hyper::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::proc::kill;
use tokio::time::sleep;

use super::{IMAGE, PATIENCE};

/// A running agent.
pub struct Agent {
    child: Child,
    /// A client of its API.
    pub client: Client,
    log: PathBuf,
}

impl Agent {
    pub(super) fn new(child: Child, client: Client, log: PathBuf) -> Self {
        Self { child, client, log }
    }

    /// How it ended, if it has.
    pub(super) fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// What it wrote to its log.
    pub fn words(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end with SIGTERM; how it ended.
    pub async fn terminate(mut self) -> ExitStatus {
        kill(self.pid(), Signal::TERM);
        self.ended().await
    }

    /// Waits until its fault point has killed it.
    pub async fn killed_at_its_point(mut self) {
        let status = self.ended().await;
        let killed = status.signal() == Some(9);
        assert!(killed, "{status}: {}", self.words());
    }

    async fn ended(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.has_ended() {
                return status;
            }
            assert!(Instant::now() < end, "it goes on: {}", self.words());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Asks for an instance of the tiny guest.
    pub async fn create(&self, name: &str, more: Value) -> Result<InstanceView, ClientError> {
        let mut request = json!({
            "name": name, "memory_mib": 64, "disk_mib": 64, "image": IMAGE,
        });
        let fields = request.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        let request = serde_json::from_value(request).unwrap();
        self.client.create(&request, None).await
    }

    /// Creates an instance and waits until it runs.
    pub async fn running(&self, name: &str) -> InstanceView {
        self.create(name, json!({})).await.unwrap();
        self.reach(name, "running").await
    }

    /// Sends a request about an instance: `start`, `stop`, `restart`.
    pub async fn ask(
        &self,
        name: &str,
        verb: &str,
        force: bool,
    ) -> Result<InstanceView, ClientError> {
        let path = format!("/v1/instances/{name}/{verb}");
        let body = (verb != "start").then(|| json!({ "force": force }));
        self.client.send(Method::POST, &path, body.as_ref()).await
    }

    /// Asks for an instance's deletion.
    pub async fn delete(&self, name: &str) -> Result<InstanceView, ClientError> {
        let path = format!("/v1/instances/{name}");
        let force = json!({ "force": true });
        self.client.send(Method::DELETE, &path, Some(&force)).await
    }

    /// Opens exactly these ports.
    pub async fn set_ports(&self, name: &str, ports: &[&str]) -> Result<Ports, ClientError> {
        let path = format!("/v1/instances/{name}/ports");
        let change = json!({ "set": ports });
        self.client.send(Method::PATCH, &path, Some(&change)).await
    }

    /// A new volume of 64 MiB.
    pub async fn create_volume(&self, name: &str) -> VolumeView {
        let request = json!({ "name": name, "size_mib": 64 });
        let created = self
            .client
            .send(Method::POST, "/v1/volumes", Some(&request));
        created.await.unwrap()
    }

    /// A volume.
    pub async fn volume(&self, name: &str) -> VolumeView {
        let path = format!("/v1/volumes/{name}");
        self.client.get(&path).await.unwrap()
    }

    /// Attaches a volume to an instance.
    pub async fn attach(&self, name: &str, to: &str) -> Result<VolumeView, ClientError> {
        let path = format!("/v1/volumes/{name}/attach");
        let body = json!({ "instance": to });
        self.client.send(Method::POST, &path, Some(&body)).await
    }

    /// Detaches a volume.
    pub async fn detach(&self, name: &str) -> Result<VolumeView, ClientError> {
        let path = format!("/v1/volumes/{name}/detach");
        self.client.send(Method::POST, &path, None::<&()>).await
    }

    /// Waits until nobody has the volume.
    pub async fn freed(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let volume = self.volume(name).await;
            if (volume.state, &volume.instance) == (VolumeState::Ready, &None) {
                return;
            }
            assert!(Instant::now() < end, "{volume:?}: {}", self.words());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// An instance, or none.
    pub async fn show(&self, name: &str) -> Option<InstanceView> {
        match self.client.get(&format!("/v1/instances/{name}")).await {
            Ok(view) => Some(view),
            Err(ClientError::Refused(detail)) if detail.code == ErrorCode::NotFound => None,
            Err(e) => panic!("{e}: {}", self.words()),
        }
    }

    /// Waits until an instance is in a phase.
    pub async fn reach(&self, name: &str, phase: &str) -> InstanceView {
        let end = Instant::now() + PATIENCE;
        loop {
            let view = self.show(name).await.expect("the instance is on record");
            if view.phase.as_str() == phase {
                return view;
            }
            assert!(
                Instant::now() < end,
                "{name} is {} and not {phase}: {:?}: {}",
                view.step,
                view.failure,
                self.words()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until an instance is gone.
    pub async fn gone(&self, name: &str) {
        let end = Instant::now() + PATIENCE;
        while let Some(view) = self.show(name).await {
            assert!(
                Instant::now() < end,
                "{name} is {}: {}",
                view.step,
                self.words()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
