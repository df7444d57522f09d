"""The operator of DoctorTwin and MinerPool: gather → plan → apply → report."""
