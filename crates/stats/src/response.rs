//! The responses of the endpoints: JSON bodies, the age of their data, and refusals.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::cached::Answer;

/// The header with the age of the response's data, in milliseconds.
pub const AGE: HeaderName = HeaderName::from_static("atoll-age-ms");

pub(crate) fn json_response(
    status: StatusCode,
    updated_at: Option<Instant>,
    body: impl Serialize,
) -> Response {
    (status, with_age(updated_at, Json(body))).into_response()
}

/// Adds the age of the data, which came from the bus at `updated_at`.
fn with_age(updated_at: Option<Instant>, answer: impl IntoResponse) -> Response {
    let age = updated_at.map(|updated_at| [(AGE, updated_at.elapsed().as_millis().to_string())]);
    (age, answer).into_response()
}

/// Responds with the whole of a shared body, if it could be encoded.
pub(crate) fn full_response<K>(body: Option<Arc<Answer<K>>>, headers: &HeaderMap) -> Response {
    match body {
        Some(body) => with_age(body.updated_at, body.encoded.respond(headers)),
        None => encoding_failed(),
    }
}

/// Responds with the elements of a shared body that have these keys.
pub(crate) fn partial_response<K: Ord>(
    body: Option<Arc<Answer<K>>>,
    headers: &HeaderMap,
    keys: &BTreeSet<K>,
    [head, tail]: [&'static str; 2],
) -> Response {
    match body {
        Some(body) => {
            let part = body.encoded.respond_part(headers, || body.select(keys, head, tail));
            with_age(body.updated_at, part)
        }
        None => encoding_failed(),
    }
}

fn encoding_failed() -> Response {
    error_response(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be encoded".to_owned())
}

/// The request cannot be answered; `error` has the reason.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refusal {
    ok: bool,
    error: String,
}

pub(crate) fn error_response(status: StatusCode, error: String) -> Response {
    json_response(status, None, Refusal { ok: false, error })
}
