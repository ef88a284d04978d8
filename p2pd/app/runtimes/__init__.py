"""Pointing container runtimes at the mirror: from the files that are there to those that should be.

Pure: nothing here touches the disk. `draft` reads through a `Files` and collects the changes; one
module a runtime says what to change; `p2pd.io.system_files` carries it out.
"""
