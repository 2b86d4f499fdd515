//! `create`, `destroy` and `resize` of a region.

use commonhold::{CreateOptions, Destroy, RegionError};
use commonhold_console::{
    failure::{Doing, Failure},
    session::Session,
};
use serde_json::json;

use super::in_the_way;
use crate::args::{CreateArgs, DestroyArgs};

pub(crate) fn create(session: &Session, args: &CreateArgs) -> Result<(), Failure> {
    let space = session.open_or_format()?;
    let options = CreateOptions {
        size: args.size,
        reserve: args.reserve,
        lazy: args.lazy,
        force: args.force,
    };
    let region =
        space.create_with(&args.name, &options).doing(|| format!("create {:?}", args.name))?;
    let key = region.key();
    tracing::info!(name = args.name, ?key, "created");
    if session.out.json {
        session.out.value(&json!({
            "name": args.name, "size": region.size(), "entry": key.entry,
            "generation": key.generation,
        }))
    } else {
        Ok(())
    }
}

pub(crate) fn destroy(session: &Session, args: &DestroyArgs) -> Result<(), Failure> {
    let space = session.open_within(args.timeout)?;
    let how = match (args.defer, args.timeout) {
        (true, _) => Destroy::Deferred,
        (false, Some(timeout)) => Destroy::Within(timeout),
        (false, None) => Destroy::Wait,
    };
    let destroyed = space.destroy(&args.name, how);
    let timed_out = matches!(destroyed, Err(RegionError::TimedOut { .. }));
    let key = destroyed.doing(|| format!("destroy {:?}", args.name)).map_err(|failure| {
        if timed_out { in_the_way::name_mappers(&space, &args.name, failure) } else { failure }
    })?;
    tracing::info!(name = args.name, ?key, "destroyed");
    if session.out.json {
        session.out.value(&json!({
            "name": args.name, "deferred": args.defer, "entry": key.entry,
            "generation": key.generation,
        }))
    } else {
        Ok(())
    }
}

pub(crate) fn resize(session: &Session, name: &str, size: u64, force: bool) -> Result<(), Failure> {
    let space = session.open()?;
    let resized = if force { space.resize_by_force(name, size) } else { space.resize(name, size) };
    resized.doing(|| format!("resize {name:?}"))?;
    if session.out.json { session.out.value(&json!({"name": name, "size": size})) } else { Ok(()) }
}
