"""The examiner: asks a version, its parent and its anchor the same, and tells what came of it. It decides nothing."""
