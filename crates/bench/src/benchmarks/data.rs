//! `data`: read and write one word, and copy many bytes, against an atomic of this process and `memcpy`.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
};

use commonhold::{FormatOptions, Mapping, Mutex, Space, Value};
use commonhold_console::{
    failure::{Doing, Failure, broken},
    session::Session,
};

use super::{Line, ROUNDS, prepare_space, time};

const TIMES: u32 = 200_000;
/// How many bytes one copy has.
const SIZES: [(usize, &str); 4] =
    [(256, "256 B"), (1 << 10, "1 KiB"), (64 << 10, "64 KiB"), (1 << 20, "1 MiB")];
/// How many bytes are copied in a round.
const BYTES: usize = 64 << 20;

pub(super) fn data(session: &Session) -> Result<Vec<Line>, Failure> {
    let (_run_space, space) = prepare_space(session, &FormatOptions::default())?;
    let name = format!("bench-data-{}", std::process::id());
    let what = || format!("open {name:?}");
    let mapping = space.map_or_create(&name, 2 << 20).doing(what)?;
    let result = words(&space, &mapping, &name).and_then(|mut lines| {
        lines.extend(copies(&mapping)?);
        Ok(lines)
    });
    drop(mapping);
    for name in [&name, &lock_name(&name)] {
        let gone = space.destroy(name, commonhold::Destroy::Deferred);
        gone.doing(|| format!("destroy {name:?}"))?;
    }
    result
}

fn lock_name(name: &str) -> String {
    format!("{name}-lock")
}

/// One word, accessed in three ways: through a `Value` that was found once, under a mutex, and by its offset each
/// time.
fn words(space: &Space, mapping: &Mapping, name: &str) -> Result<Vec<Line>, Failure> {
    const AGAINST: &str = "an atomic of this process";
    let lock = lock_name(name);
    let mutex = space.record::<Mutex<u64>>(&lock).doing(|| format!("open {lock:?}"))?;
    let guard = mutex.lock().doing(|| format!("lock {lock:?}"))?;
    let value: Value<u64> = mapping.value(64).doing(|| format!("open {name:?}"))?;
    let own = AtomicU64::new(0);
    let mut refused = 0_u32;
    let mut times: [Vec<f64>; 8] = Default::default();
    for round in 0..ROUNDS as u64 {
        let mut all = |times: &mut [Vec<f64>; 8]| {
            let mut refuse = |result: bool| refused += u32::from(!result);
            let found = [
                time(TIMES, || _ = black_box(own.load(Ordering::Relaxed))),
                time(TIMES, || own.store(black_box(round), Ordering::Relaxed)),
                time(TIMES, || _ = black_box(value.load())),
                time(TIMES, || refuse(value.store(black_box(round)).is_ok())),
                time(TIMES, || _ = black_box(guard.get())),
                time(TIMES, || guard.set(black_box(round))),
                time(TIMES, || refuse(black_box(mapping.get::<u64>(72)).is_ok())),
                time(TIMES, || refuse(mapping.set(72, &black_box(round)).is_ok())),
            ];
            times.iter_mut().zip(found).for_each(|(all, one)| all.push(one));
        };
        all(&mut times);
    }
    if refused > 0 {
        return Err(broken(format!("{refused} words were not read or written")));
    }
    let [load, store, found_load, found_store, get, set, at_get, at_set] = times;
    let line = |what: &str, ours, own: &Vec<f64>| Line::new(what, AGAINST, ours, own.clone());
    Ok(vec![
        line("value, load", found_load, &load),
        line("value, store", found_store, &store),
        line("guard, get", get, &load),
        line("guard, set", set, &store),
        line("mapping, get", at_get, &load),
        line("mapping, set", at_set, &store),
    ])
}

fn copies(mapping: &Mapping) -> Result<Vec<Line>, Failure> {
    const AGAINST: &str = "memcpy in this process";
    let mut lines = Vec::new();
    for (size, label) in SIZES {
        let count = u32::try_from((BYTES / size).min(100_000)).unwrap_or(1);
        let (mut to, from) = (vec![1_u8; size], vec![2_u8; size]);
        let mut other = vec![3_u8; size];
        let mut failed = 0_u32;
        let mut times: [Vec<f64>; 3] = Default::default();
        for _ in 0..ROUNDS {
            let found = [
                time(count, || black_box(other.as_mut_slice()).copy_from_slice(black_box(&from))),
                time(count, || {
                    failed += u32::from(mapping.read_at(0, black_box(&mut to)).is_err());
                }),
                time(count, || {
                    failed += u32::from(mapping.write_at(1 << 20, black_box(&from)).is_err());
                }),
            ];
            times.iter_mut().zip(found).for_each(|(all, one)| all.push(one));
        }
        if failed > 0 {
            return Err(broken(format!("{failed} copies failed")));
        }
        let [own, out, into] = times;
        lines.push(Line::new(&format!("copy {label} out"), AGAINST, out, own.clone()));
        lines.push(Line::new(&format!("copy {label} in"), AGAINST, into, own));
    }
    Ok(lines)
}
