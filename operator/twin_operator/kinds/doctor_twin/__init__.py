"""DoctorTwin: what its pools do for it, told in conditions. The pools' routing slices decide; this package reports."""
