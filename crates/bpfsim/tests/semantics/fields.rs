//! Section 4: special fields of map values.

use crate::world::*;
use bpfsim::{Config, Ebpf, Errno, MapSpec, Result, Sim, ensure, ensure_eq, update};
use bpfsim_abi::MapType;
use bpfsim_kernel::Kernel;

const SHAPES: &[u8] = include_bytes!("../../../../fixtures/field_shapes.bpf.o");

/// What creating such a map answers.
fn create(spec: MapSpec) -> Result<(), Errno> {
    let mut kernel = Kernel::new(Config::default()).expect("there is memory");
    kernel.map_create(spec).map(drop)
}

pub fn map_types(w: &mut World) -> Result<()> {
    let spec = w.map(HASH).spec();
    let of = |map_type| MapSpec {
        map_type,
        ..spec.clone()
    };
    for map_type in [MapType::Hash, MapType::LruHash, MapType::Array] {
        ensure_eq!(create(of(map_type)), Ok(()));
    }
    for map_type in [
        MapType::PercpuHash,
        MapType::PercpuArray,
        MapType::LruPercpuHash,
    ] {
        ensure_eq!(create(of(map_type)), Err(Errno::EOPNOTSUPP));
    }
    Ok(())
}

pub fn program_access_flags(w: &mut World) -> Result<()> {
    for flags in [1 << 7, 1 << 8] {
        let spec = MapSpec {
            flags,
            ..w.map(HASH).spec()
        };
        ensure_eq!(create(spec), Err(Errno::EACCES));
    }
    Ok(())
}

/// A map can be frozen just when the kernel found no such field in it (4.5).
pub fn detection(w: &mut World) -> Result<()> {
    w.sim = Sim::new()?;
    let shapes = Ebpf::load(&w.sim, SHAPES)?;
    let mut kernel = Kernel::new(Config::default()).expect("there is memory");
    let mut seen = 0;
    for map in shapes.maps() {
        let spec = map.spec();
        let Some(name) = spec.name.strip_prefix("m_") else {
            continue;
        };
        let (name, id) = (
            name.to_string(),
            kernel.map_create(spec).expect("all are made"),
        );
        let found = kernel.map_freeze(id) == Err(Errno::ENOTSUPP);
        ensure_eq!(
            (name.as_str(), found),
            (name.as_str(), name.starts_with("found_"))
        );
        seen += 1;
    }
    ensure_eq!(seen, 10);
    Ok(())
}

pub fn freeze(w: &mut World) -> Result<()> {
    let mut kernel = Kernel::new(Config::default()).expect("there is memory");
    let map = kernel.map_create(w.map(ARRAY).spec()).expect("it is made");
    ensure_eq!(kernel.map_freeze(map), Err(Errno::ENOTSUPP));
    Ok(())
}

pub fn user_space_sees_zero(w: &mut World) -> Result<()> {
    w.run(&arm(HASH, 1, 0, FAR))?;
    let hash = w.map(HASH);
    let value = hash.lookup(&1u32.to_le_bytes())?.expect("it is there");
    ensure!(value[..40].iter().all(|&b| b == 0));
    // What is given for the fields is ignored.
    let key = 2u32.to_le_bytes();
    hash.update(&key, &[0xff; 64], update::ANY)?;
    ensure_eq!(
        w.run(&[
            on(Code::TimerInit, HASH, 2).flags(1),
            on(Code::Read, HASH, 2)
        ])?,
        [0, -1]
    );
    let value = hash.lookup_and_delete(&key)?;
    ensure!(value[..40].iter().all(|&b| b == 0) && value[40..].iter().all(|&b| b == 0xff));
    Ok(())
}

pub fn updates_free_or_keep(w: &mut World) -> Result<()> {
    for map in [HASH, SPARSE, RECENT, ARRAY] {
        w.run(&arm(map, 1, 0, FAR))?;
        w.map(map)
            .update(&1u32.to_le_bytes(), &[0; 64], update::EXIST)?;
        ensure_eq!(w.run(&[on(Code::TimerStart, map, 1)])?, [EINVAL]);
    }
    for map in [HASH, SPARSE, RECENT] {
        w.run(&arm(map, 2, 0, FAR))?;
        w.map(map).delete(&2u32.to_le_bytes())?;
        let again = [
            on(Code::Update, map, 2),
            on(Code::TimerInit, map, 2).flags(1),
        ];
        ensure_eq!(w.run(&again)?, [0, 0]);
    }
    ensure!(w.map(ARRAY).delete(&2u32.to_le_bytes()).is_err());
    // There is no lock in these values.
    for map in [HASH, ARRAY, RECENT] {
        ensure!(
            w.map(map)
                .update(&1u32.to_le_bytes(), &[0; 64], update::LOCK)
                .is_err()
        );
    }
    Ok(())
}
