"""The release contract: what a draft or release holds; to build, verify, publish and open one."""
