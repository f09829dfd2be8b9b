//! A client of the content service (Decentraland's catalyst API), which knows the scene on each parcel.

use std::time::Duration;

use admission::HttpClient;
use protocol::Parcel;
use reqwest::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{metrics, scenes::Scene};

/// A client of a content service.
#[derive(Debug)]
pub(crate) struct Content {
    client: HttpClient,
    deadline: Duration,
    /// The base URL, without a slash at its end.
    url: String,
}

/// The reason for which a request to the content service failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ContentError {
    /// The HTTP client could not be created.
    #[error("no HTTP client: {0}")]
    Client(#[source] reqwest::Error),
    /// There was no response within the deadline.
    #[error("no answer in time")]
    TooSlow,
    /// The connection failed.
    #[error("it cannot be reached: {0}")]
    Unreachable(#[source] reqwest::Error),
    /// The status of the response is no success.
    #[error("it answered with status {0}")]
    Status(u16),
    /// The body has more than `MAX_ANSWER_BYTES`.
    #[error("the answer is larger than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
    /// The body is no list of entities.
    #[error("the answer is no list of entities: {0}")]
    NotUnderstood(#[source] serde_json::Error),
}

/// The limit of a response. A hundred scenes have some hundred KiB.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

impl ContentError {
    /// The label of the metric that counts the errors.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::TooSlow => "slow",
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "status",
            Self::TooLarge => "large",
            Self::NotUnderstood(_) => "understood",
        }
    }
}

impl From<reqwest::Error> for ContentError {
    fn from(error: reqwest::Error) -> Self {
        if error.is_timeout() { Self::TooSlow } else { Self::Unreachable(error.without_url()) }
    }
}

#[derive(Serialize)]
struct EntitiesRequest {
    pointers: Vec<String>,
}

#[derive(Deserialize)]
struct Entity {
    id: String,
    pointers: Vec<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    content: Vec<ContentFile>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    display: Option<Display>,
    #[serde(default)]
    scene: Option<SceneLayout>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Display {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    navmap_thumbnail: Option<String>,
}

#[derive(Default, Deserialize)]
struct SceneLayout {
    #[serde(default)]
    base: Option<String>,
    #[serde(default)]
    parcels: Vec<String>,
}

/// A file of an entity, and the hash under which its content is stored.
#[derive(Deserialize)]
struct ContentFile {
    file: String,
    hash: String,
}

impl Content {
    /// The service at `url` (`http://…` or `https://…`). A request fails after `deadline`.
    pub(crate) fn new(url: &str, deadline: Duration) -> Self {
        let client = HttpClient::new(url, |builder| builder);
        Self { client, deadline, url: url.trim_end_matches('/').to_owned() }
    }

    /// The scenes on these parcels, each with the parcels that point to it.
    pub(crate) async fn scenes(&self, parcels: &[Parcel]) -> Result<Vec<(Scene, Vec<Parcel>)>, ContentError> {
        let request = EntitiesRequest { pointers: parcels.iter().map(ToString::to_string).collect() };
        let url = format!("{}/entities/active", self.url);
        let client = self.client.get().map_err(ContentError::Client)?;
        let response = client.post(url).timeout(self.deadline).json(&request).send().await?;
        if !response.status().is_success() {
            return Err(ContentError::Status(response.status().as_u16()));
        }
        let body = read_body(response).await?;
        let entities: Vec<Value> = serde_json::from_slice(&body).map_err(ContentError::NotUnderstood)?;
        Ok(entities.into_iter().filter_map(|entity| self.scene(entity)).collect())
    }

    /// The scene that an entity describes; `None`, counted as an error, if it describes none.
    fn scene(&self, entity: Value) -> Option<(Scene, Vec<Parcel>)> {
        let scene = serde_json::from_value::<Entity>(entity).ok().and_then(|entity| self.read_entity(entity));
        if scene.is_none() {
            metrics::content_errors("entity").increment(1);
        }
        scene
    }

    fn read_entity(&self, entity: Entity) -> Option<(Scene, Vec<Parcel>)> {
        let parcels = |pointers: &[String]| -> Vec<Parcel> {
            pointers.iter().filter_map(|pointer| pointer.parse().ok()).collect()
        };
        let pointers = parcels(&entity.pointers);
        let metadata = entity.metadata.unwrap_or_default();
        let (display, layout) = (metadata.display.unwrap_or_default(), metadata.scene.unwrap_or_default());
        let mut all = parcels(&layout.parcels);
        if all.is_empty() {
            all.clone_from(&pointers);
        }
        let base = layout.base.and_then(|base| base.parse().ok()).or(pointers.first().copied())?;
        // The thumbnail is a URL, or the name of one of the files.
        let thumbnail = display.navmap_thumbnail.and_then(|thumbnail| {
            if thumbnail.starts_with("http://") || thumbnail.starts_with("https://") {
                return Some(thumbnail);
            }
            let file = entity.content.iter().find(|content| content.file == thumbnail)?;
            Some(format!("{}/contents/{}", self.url, file.hash))
        });
        let name = display.title.unwrap_or_default();
        let description = display.description.filter(|text| !text.is_empty());
        Some((Scene { id: entity.id, name, base, parcels: all, thumbnail, description }, pointers))
    }
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, ContentError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(ContentError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn content() -> Content {
        // The client needs a TLS provider although these tests use no TLS. Only the first call succeeds.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Content::new("http://content", Duration::from_secs(1))
    }

    #[test]
    fn entity_gives_the_name_and_parcels_of_a_scene() {
        let entity = json!({
            "version": "v3", "id": "bafk1", "type": "scene", "pointers": ["0,0", "0,1"],
            "content": [{"file": "images/map.png", "hash": "bafk2"}],
            "metadata": {
                "display": {"title": "Plaza", "description": "", "navmapThumbnail": "images/map.png"},
                "scene": {"base": "0,1", "parcels": ["0,0", "0,1"]}
            }
        });
        let (scene, pointers) = content().scene(entity).unwrap();
        let both = vec![Parcel { x: 0, y: 0 }, Parcel { x: 0, y: 1 }];
        let expected = Scene {
            id: "bafk1".to_owned(),
            name: "Plaza".to_owned(),
            base: both[1],
            parcels: both.clone(),
            thumbnail: Some("http://content/contents/bafk2".to_owned()),
            description: None,
        };
        assert_eq!((scene, pointers), (expected, both));
    }

    #[test]
    fn sparse_entity_is_a_scene_and_malformed_one_is_none() {
        let (scene, _) = content().scene(json!({"id": "a", "pointers": ["3,4"], "metadata": null})).unwrap();
        let only = Parcel { x: 3, y: 4 };
        assert_eq!((scene.name, scene.base, scene.parcels), (String::new(), only, vec![only]));
        for entity in [
            json!(null),
            json!({"id": "a"}),
            json!({"id": 1, "pointers": ["0,0"]}),
            json!({"id": "a", "pointers": ["urn:profile"]}),
            json!({"id": "a", "pointers": ["0,0"], "metadata": {"display": {"title": 7}}}),
        ] {
            assert_eq!(content().scene(entity.clone()), None, "{entity}");
        }
    }
}
