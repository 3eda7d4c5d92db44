"""What the command line needs in addition: commands are imported by name and found through the metadata."""

from PyInstaller.utils.hooks import collect_data_files, collect_submodules, copy_metadata

hiddenimports = collect_submodules("linkedout_edge.cli")
datas = [*collect_data_files("linkedout_edge.cli"), *copy_metadata("linkedout-edge")]
