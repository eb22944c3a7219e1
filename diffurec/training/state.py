"""What state.json of a checkpoint and config.json of an exported model hold.

Apart, because pydantic takes long to load and only reading needs it.
"""

from typing import Annotated, Any

from pydantic import Field, conlist

from ..base.records import Closed, Record, record

Count = Annotated[int, Field(ge=0)]
AtLeast1 = Annotated[int, Field(ge=1)]
File = Annotated[str, Field(pattern=r"^(last|best)-[0-9]{4,}\.safetensors$")]        # nothing outside the directory
Items = Annotated[str, Field(pattern=r"^items-[0-9a-f]{12}\.json$")]
# The bounds are far above any model; without them the shapes of a hostile one could not be made up.
Model = record(["hidden_size", "num_diffusion_steps"], (int, Field(0, le=10**6)), num_blocks=(int, Field(0, le=1000)))


class Numbers(Record, extra="allow"):
    __pydantic_extra__: dict[str, float]


Best = record(["best_epoch", "bad_validations"], Count, Closed, best_metric=float)
State = record(
    ["data"], str, Best, format=Count, num_items=AtLeast1,
    model=Model,
    train=dict[str, Any],
    log=conlist(record(["loss", "seconds", "learning_rate"], float, Closed, epoch=Count,
                       validation=record(["NDCG@10"], float, Numbers) | None)),
    finished=str | None, files=record(["last"], File, Closed, best=(File, ""), before=(File, ""), items=(Items, "")),
    # What an older one does not have, and the last that only format 1 has.
    version=(str, ""), numbering=(str, ""), processes=(AtLeast1, 1), before=(Best | None, None), stale=(list[File], []),
    scheduler=(Any, None))
Exported = record(["library", "version"], str, format=Count, num_items=AtLeast1, numbering=str | None, model=Model,
                  training=dict[str, Any] | None)
