"""DoctorTwin: what its pools do for it, told in conditions. The pools' routing tables decide; this package reports."""
