"""What an app needs that ranks: the bundle inside the package. Its modules are found by their imports."""

from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("linkedout_edge", includes=["bundles/**/*"])
