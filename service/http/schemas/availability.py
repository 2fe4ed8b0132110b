"""PUT /items/{item_id}: whether an item may be recommended."""

from pydantic import Field

from service.http.schemas.common import Input, Output, example


class Availability(Input):
    model_config = example(available=False)

    available: bool = Field(description="false: within a second, no worker recommends the item")


class AvailabilityNow(Output):
    model_config = example(available=False, changed=True)

    available: bool
    changed: bool = Field(description="whether it was different before")
