"""What a release consists of, made into one folder: charts, the plugin, bills of materials, checksums, signatures."""
