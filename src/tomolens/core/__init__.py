"""What things are: grids, volumes, series, findings, runs and model cards. numpy only; opens no file."""
