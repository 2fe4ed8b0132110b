"""The release contract: write, build, verify, publish and open drafts and releases."""
