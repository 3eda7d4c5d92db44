"""What an app that ranks needs: the bundle inside the package. Modules are found by their imports."""

from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("linkedout_edge", includes=["bundles/**/*"])
