//! `create`, `destroy`, `resize`: the life of one region.

use commonhold::{CreateOptions, Destroy};
use serde_json::json;

use crate::{
    args::{CreateArgs, DestroyArgs},
    failure::{Doing, Failure},
    session::Session,
};

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
    let key = space.destroy(&args.name, how).doing(|| format!("destroy {:?}", args.name))?;
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
