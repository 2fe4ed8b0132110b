"""What is said of a draft or release that is not used. Apart, for those who load no model."""


class ReleaseError(Exception):
    """A draft or release is not what its manifest says, or is not one this program may use.

    stage: what opening it had come to: its manifest, files, parts, index or canaries.
    """

    stage: str = "manifest"
