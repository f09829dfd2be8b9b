//! The HTTP endpoints, with their OpenAPI description.

mod counts;
mod events;
mod islands;
mod peers;
mod query;

use std::sync::Arc;

use axum::middleware;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{access::authorize, shared::Shared};

pub(crate) fn router(shared: Arc<Shared>) -> OpenApiRouter {
    let access = shared.settings.access.clone();
    let restricted = OpenApiRouter::new()
        .routes(routes!(peers::peers))
        .routes(routes!(peers::peer))
        .routes(routes!(islands::islands))
        .routes(routes!(islands::island))
        .routes(routes!(counts::all_parcels))
        .routes(routes!(events::events))
        .route_layer(middleware::from_fn_with_state(access, authorize));
    // These endpoints count peers and name none, so they need no access token.
    let public =
        OpenApiRouter::new().routes(routes!(counts::core_status)).routes(routes!(counts::all_hot_scenes));
    restricted.merge(public).with_state(shared)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::settings::tests::settings;

    /// The paths of a router. Its debug output is the only place that lists them.
    fn paths(router: &axum::Router) -> BTreeSet<String> {
        let debug = format!("{router:?}");
        debug.split('"').filter(|text| text.starts_with('/')).map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_in_the_openapi_description() {
        let (router, api) = router(Arc::new(Shared::new(settings()))).split_for_parts();
        let paths: BTreeSet<String> = &paths(&router) - &paths(&axum::Router::new());
        assert!(paths.contains("/peers"), "{router:?}");
        assert_eq!(paths, api.paths.paths.into_keys().collect());
    }
}
