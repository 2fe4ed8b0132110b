"""PUT /items/{item_id}: whether an item may be in answers."""

from pydantic import Field

from service.http.schemas.common import Input, Output, example


class Availability(Input):
    model_config = example(available=False)

    available: bool = Field(description="false: in no answer of any worker, within a second")


class AvailabilityNow(Output):
    model_config = example(available=False, changed=True)

    available: bool
    changed: bool = Field(description="whether it was not so before")
